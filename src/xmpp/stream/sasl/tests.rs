//! Tests of SASL: the vectors of RFC 5802 and RFC 7677, and every way to be refused.
