//! XEP-0030: Service Discovery, with the forms of XEP-0128. What the server, and an account, is and
//! can do, and which resources of an account are there.
//!
//! Invariant: nobody learns by it whether an account exists or is available who does not get its
//! presence.

use super::{
    Answer, Context, Extension, Request, Target, Xep, account_features, commands, features,
    info_forms, only_get, pubsub,
};
use crate::error::{StanzaError, put};
use crate::settings::{SOFTWARE_NAME, Settings};
use crate::xml::Attr;
use stanza::ns::Ns;
use std::borrow::Cow;

/// disco#info.
#[derive(Debug)]
pub struct Disco;

/// disco#items: the available resources of an account, and the components of the server.
#[derive(Debug)]
pub struct DiscoItems;

const XEP: Xep = Xep {
    number: 30,
    version: "2.5.0",
};

/// What an entity says of itself.
#[derive(Debug)]
pub(super) struct Info<'a> {
    pub identities: Vec<Identity<'a>>,
    pub features: Vec<&'a str>,
    pub forms: Vec<Form<'a>>,
}

/// What an entity is; an empty text is none.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    pub category: &'a str,
    pub kind: &'a str,
    pub lang: &'a str,
    pub name: &'a str,
}

/// More of an entity than features say (XEP-0128).
#[derive(Debug)]
pub struct Form<'a> {
    /// Its FORM_TYPE.
    pub(super) kind: &'a str,
    pub(super) fields: Vec<Field<'a>>,
}

#[derive(Debug)]
pub(super) struct Field<'a> {
    pub var: Cow<'a, str>,
    pub kind: &'a str,
    pub values: Vec<&'a str>,
}

impl<'a> Info<'a> {
    /// The server's.
    pub(super) fn of_server(settings: &'a Settings) -> Info<'a> {
        let features = features(settings).into_iter();
        let named = |category, kind, name| Identity {
            category,
            kind,
            lang: "",
            name,
        };
        let mut identities = vec![named("server", "im", SOFTWARE_NAME)];
        if settings.uploads.is_some() {
            // XEP-0363 3
            identities.push(named("store", "file", "HTTP File Upload"));
        }
        Info {
            identities,
            features: features.map(Ns::as_str).collect(),
            forms: info_forms(settings),
        }
    }

    /// An account's.
    fn of_account(settings: &Settings, has_nodes: bool) -> Info<'a> {
        // A guest has no archive, as it has no nodes.
        let own = match has_nodes {
            true => account_features(settings),
            false => Vec::new(),
        };
        let features = Disco::FEATURES
            .iter()
            .chain(DiscoItems::FEATURES)
            .chain(&own);
        let identity = |category, kind| Identity {
            category,
            kind,
            lang: "",
            name: "",
        };
        let mut info = Info {
            identities: vec![identity("account", "registered")],
            features: features.map(|feature| feature.as_str()).collect(),
            forms: Vec::new(),
        };
        if has_nodes {
            // XEP-0163 6.1
            info.identities.push(identity("pubsub", "pep"));
            info.features.extend(pubsub::FEATURES);
        }
        info
    }

    /// Writes what stands in the query.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for one in &self.identities {
            let (category, kind) = (Attr(one.category), Attr(one.kind));
            put(
                out,
                format_args!("<identity category='{category}' type='{kind}'"),
            );
            for (attribute, value) in [("xml:lang", one.lang), ("name", one.name)] {
                if !value.is_empty() {
                    put(out, format_args!(" {attribute}='{}'", Attr(value)));
                }
            }
            out.extend_from_slice(b"/>");
        }
        for feature in &self.features {
            put(out, format_args!("<feature var='{}'/>", Attr(feature)));
        }
        self.forms.iter().for_each(|form| form.write(out));
    }
}

impl Form<'_> {
    /// XEP-0128 2: of the type `result`, and a hidden field says of what kind it is.
    fn write(&self, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'>\
                 <value>{}</value></field>",
                Attr(self.kind)
            ),
        );
        for field in &self.fields {
            let (var, kind) = (Attr(&field.var), Attr(field.kind));
            put(out, format_args!("<field var='{var}' type='{kind}'>"));
            for value in &field.values {
                put(out, format_args!("<value>{}</value>", Attr(value)));
            }
            out.extend_from_slice(b"</field>");
        }
        out.extend_from_slice(b"</x>");
    }
}

impl Extension for Disco {
    const XEP: Xep = XEP;
    const NAMESPACES: &'static [Ns] = &[Ns::DiscoInfo];
    const FEATURES: &'static [Ns] = &[Ns::DiscoInfo];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        // XEP-0030 8: what an account can do is its contacts' business.
        if request.target == Target::Other && !context.sees_presence {
            return Err(StanzaError::ServiceUnavailable);
        }
        only_get(request)?;
        let node = request.payload.attr("node");
        if let Some(node) = node.filter(|node| commands::has_node(context, request, node)) {
            return commands::info(context, node, payload);
        }
        let is_there =
            |node| request.target == Target::Server && context.capabilities.is_node(node);
        // XEP-0030 7: a node that is not there is an item that is not found.
        if node.is_some_and(|node| !is_there(node)) {
            return Err(StanzaError::ItemNotFound);
        }
        open_query(Ns::DiscoInfo, node, payload);
        match request.target {
            Target::Server => payload.extend_from_slice(context.capabilities.info()),
            Target::Account | Target::Other => {
                Info::of_account(context.settings, context.has_nodes).write(payload);
            }
        }
        payload.extend_from_slice(b"</query>");
        Ok(Answer::Now)
    }
}

impl Extension for DiscoItems {
    const XEP: Xep = XEP;
    const NAMESPACES: &'static [Ns] = &[Ns::DiscoItems];
    const FEATURES: &'static [Ns] = &[Ns::DiscoItems];

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        payload: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        only_get(request)?;
        let node = request.payload.attr("node");
        if let Some(node) = node.filter(|node| commands::has_node(context, request, node)) {
            commands::items(context, node, payload);
            return Ok(Answer::Now);
        }
        // XEP-0030 8: whoever does not get the presence is told of nothing, with a node or without,
        // and of an account that does not exist just the same.
        let is_seen = request.target != Target::Other || context.sees_presence;
        if is_seen && node.is_some() {
            return Err(StanzaError::ItemNotFound);
        }
        open_query(Ns::DiscoItems, node, payload);
        let item = |jid: &str, out: &mut Vec<u8>| {
            put(out, format_args!("<item jid='{}'/>", Attr(jid)));
        };
        match request.target {
            Target::Server => {
                let components = &context.settings.components;
                components.iter().for_each(|one| item(&one.domain, payload));
            }
            Target::Account | Target::Other if is_seen => {
                let available = context.available.addresses();
                available.for_each(|full| item(full, payload));
            }
            Target::Account | Target::Other => {}
        }
        payload.extend_from_slice(b"</query>");
        Ok(Answer::Now)
    }
}

/// XEP-0030 3.2: an answer names the node that was asked for.
pub(super) fn open_query(ns: Ns, node: Option<&str>, payload: &mut Vec<u8>) {
    put(payload, format_args!("<query xmlns='{}'", ns.as_str()));
    if let Some(node) = node {
        put(payload, format_args!(" node='{}'", Attr(node)));
    }
    payload.push(b'>');
}
