//! A server process for a test, and a small blocking client that shares no code with it.

#![allow(dead_code, unused_imports)] // each test binary uses its part

pub(crate) mod client;
pub(crate) mod element;
pub(crate) mod files;
pub(crate) mod roster;
pub(crate) mod server;
pub(crate) mod web;

pub(crate) use client::{Client, Event};
pub(crate) use element::Element;
pub(crate) use server::{Options, Server};

/// The domain of every server under test.
pub(crate) const DOMAIN: &str = "localhost";

/// The password of every account: `u0`, `u1`, and so on.
pub(crate) const PASSWORD: &str = "secret";

/// The namespace of client stanzas.
pub(crate) const CLIENT: &str = "jabber:client";

/// The namespace of stanza error conditions.
pub(crate) const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// The namespace of stream error conditions.
pub(crate) const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
