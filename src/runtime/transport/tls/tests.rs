//! Tests of TLS.
