//! The forms that say how a node is configured (XEP-0060 16.4, XEP-0004).

use super::refusal::Refusal;
use crate::error::{StanzaError, put};
use crate::port::{AccessModel, NodeConfig, PublishModel, SendLast};
use crate::xml::Attr;
use stanza::ns::Ns;
use stanza::tree::Node as Element;

/// The kind of a form that configures a node.
pub(super) const CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// That of one that says what a publisher expects of it.
pub(super) const OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// That of one that tells about it.
const META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";

/// How many items a node may keep where its owner names no number.
const MAX: &str = "max";

/// Bytes of a title, a type or the name of a group.
const TEXT_SIZE_MAX: usize = 1_023;
/// Groups of the roster that a node may name.
const GROUPS_MAX: usize = 64;

/// The fields of a form with their values.
pub(crate) type Fields = super::FormFields;

/// What stands in the fields of a form.
pub(in crate::xep) fn fields(x: Element<'_>) -> Fields {
    let fields = x
        .children()
        .filter(|field| field.is("field", Ns::DataForms));
    let read = |field: Element<'_>| {
        let values = field.children();
        let values = values.filter(|value| value.is("value", Ns::DataForms));
        let var = field.attr("var").unwrap_or_default().into();
        (var, values.map(|value| value.text().into()).collect())
    };
    fields.map(read).collect()
}

/// How a node of many items is configured that is its owner's alone (XEP-0223 3).
pub(crate) fn private_options() -> Fields {
    as_fields(&[
        ("pubsub#access_model", AccessModel::Whitelist.as_str()),
        ("pubsub#send_last_published_item", SendLast::Never.as_str()),
        ("pubsub#max_items", MAX),
        ("pubsub#persist_items", "true"),
    ])
}

/// The same of a node that has one item (XEP-0048 3.1).
pub(super) fn single_options() -> Fields {
    as_fields(&[
        ("pubsub#access_model", AccessModel::Whitelist.as_str()),
        ("pubsub#persist_items", "true"),
    ])
}

/// How a node is configured that is everybody's to read (XEP-0222 3).
pub(super) fn public_options() -> Fields {
    as_fields(&[("pubsub#access_model", AccessModel::Open.as_str())])
}

fn as_fields(all: &[(&str, &str)]) -> Fields {
    let all = all.iter();
    all.map(|(var, value)| ((*var).into(), vec![(*value).into()]))
        .collect()
}

/// What a submitted form says; `None` where it is of another kind, or none at all.
pub(super) fn read(x: Element<'_>, kind: &str) -> Option<Fields> {
    if !x.is("x", Ns::DataForms) || x.attr("type") != Some("submit") {
        return None;
    }
    let mut fields = fields(x);
    // XEP-0068 3.1
    let place = fields.iter().position(|(var, _)| &**var == "FORM_TYPE")?;
    let (_, kinds) = fields.remove(place);
    (kinds.len() == 1 && *kinds[0] == *kind).then_some(fields)
}

/// Why a field changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    /// No node has it.
    Unknown,
    /// No node can be so.
    Value(Refusal),
}

const UNACCEPTABLE: Unfit =
    Unfit::Value(Refusal::with(StanzaError::NotAcceptable, "invalid-options"));

/// Configures a node; fields that it does not have are passed over (XEP-0004 3.3).
///
/// # Errors
/// A value that no node of this service can have.
pub(super) fn apply(config: &mut NodeConfig, fields: &Fields) -> Result<(), Refusal> {
    for (var, values) in fields {
        match set(config, var, values) {
            Ok(()) | Err(Unfit::Unknown) => {}
            Err(Unfit::Value(refusal)) => return Err(refusal),
        }
    }
    Ok(())
}

/// What a publisher expects of a node that is there (XEP-0060 7.1.5).
///
/// # Errors
/// It is not so, or no node has such a field.
pub(super) fn expect(config: &NodeConfig, fields: &Fields) -> Result<(), Refusal> {
    let mut expected = config.clone();
    let all = fields.iter();
    let unfit = all.filter_map(|(var, values)| set(&mut expected, var, values).err());
    let unfit: Vec<Unfit> = unfit.collect();
    if unfit.contains(&Unfit::Unknown) {
        return Err(StanzaError::BadRequest.into());
    }
    match unfit.is_empty() && expected == *config {
        true => Ok(()),
        false => Err(Refusal::with(StanzaError::Conflict, "precondition-not-met")),
    }
}

/// Configures a node that is made by being published to: no field is passed over.
///
/// # Errors
/// What it asks for cannot be.
pub(super) fn prepare(config: &mut NodeConfig, fields: &Fields) -> Result<(), Refusal> {
    for (var, values) in fields {
        set(config, var, values).map_err(|unfit| match unfit {
            Unfit::Unknown => StanzaError::BadRequest.into(),
            Unfit::Value(refusal) => refusal,
        })?;
    }
    Ok(())
}

fn set(config: &mut NodeConfig, var: &str, values: &[Box<str>]) -> Result<(), Unfit> {
    let name = var.strip_prefix("pubsub#").ok_or(Unfit::Unknown)?;
    if name == "roster_groups_allowed" {
        let is_long = values.iter().any(|group| group.len() > TEXT_SIZE_MAX);
        if is_long || values.len() > GROUPS_MAX {
            return Err(UNACCEPTABLE);
        }
        config.groups = values.into();
        return Ok(());
    }
    let value = match values {
        [] => "",
        [value] => value,
        _ => return Err(UNACCEPTABLE),
    };
    match name {
        "title" => config.title = text(value)?,
        "type" => config.kind = text(value)?,
        "access_model" => {
            const REFUSED: Refusal =
                Refusal::with(StanzaError::NotAcceptable, "unsupported-access-model");
            config.access = AccessModel::parse(value).ok_or(Unfit::Value(REFUSED))?;
        }
        "publish_model" => config.publish = PublishModel::parse(value).ok_or(UNACCEPTABLE)?,
        "send_last_published_item" => {
            config.send_last = SendLast::parse(value).ok_or(UNACCEPTABLE)?;
        }
        "max_items" => config.items_max = items_max(value)?,
        "persist_items" => config.persists = truth(value)?,
        "deliver_notifications" => config.notifies = truth(value)?,
        "deliver_payloads" => config.delivers_payloads = truth(value)?,
        "notify_retract" => config.notifies_retract = truth(value)?,
        "notify_delete" => config.notifies_delete = truth(value)?,
        "notify_config" => config.notifies_config = truth(value)?,
        // What is told of a node is told in this type.
        "notification_type" if value == "headline" => {}
        "notification_type" => return Err(UNACCEPTABLE),
        _ => return Err(Unfit::Unknown),
    }
    Ok(())
}

fn text(value: &str) -> Result<Box<str>, Unfit> {
    match value.len() <= TEXT_SIZE_MAX {
        true => Ok(value.into()),
        false => Err(UNACCEPTABLE),
    }
}

/// More than may be is as many as may be; the service says so where it keeps them.
fn items_max(value: &str) -> Result<u32, Unfit> {
    if value == MAX {
        return Ok(u32::MAX);
    }
    let count = value.parse().ok().filter(|count| *count > 0);
    count.ok_or(UNACCEPTABLE)
}

/// XEP-0004 3.3
fn truth(value: &str) -> Result<bool, Unfit> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(UNACCEPTABLE),
    }
}

/// Appends the form by which a node is configured, filled in.
pub(super) fn write_config(config: &NodeConfig, out: &mut Vec<u8>) {
    begin(out, "form", CONFIG);
    field(out, "title", "text-single", &config.title);
    field(out, "type", "text-single", &config.kind);
    choice(
        out,
        "access_model",
        config.access.as_str(),
        AccessModel::ALL,
        |it| it.as_str(),
    );
    put(
        out,
        format_args!("<field var='pubsub#roster_groups_allowed' type='text-multi'>"),
    );
    for group in &config.groups {
        put(out, format_args!("<value>{}</value>", Attr(group)));
    }
    out.extend_from_slice(b"</field>");
    let publish = config.publish.as_str();
    choice(out, "publish_model", publish, PublishModel::ALL, |it| {
        it.as_str()
    });
    field(out, "max_items", "text-single", &count(config.items_max));
    let last = config.send_last.as_str();
    choice(out, "send_last_published_item", last, SendLast::ALL, |it| {
        it.as_str()
    });
    for (name, is_so) in [
        ("persist_items", config.persists),
        ("deliver_notifications", config.notifies),
        ("deliver_payloads", config.delivers_payloads),
        ("notify_retract", config.notifies_retract),
        ("notify_delete", config.notifies_delete),
        ("notify_config", config.notifies_config),
    ] {
        field(out, name, "boolean", if is_so { "1" } else { "0" });
    }
    choice(out, "notification_type", "headline", &["headline"], |it| it);
    out.extend_from_slice(b"</x>");
}

/// Appends what is told about a node to who may read it (XEP-0060 5.4).
pub(super) fn write_meta_data(config: &NodeConfig, out: &mut Vec<u8>) {
    begin(out, "result", META_DATA);
    field(out, "title", "text-single", &config.title);
    field(out, "type", "text-single", &config.kind);
    field(out, "access_model", "list-single", config.access.as_str());
    field(out, "max_items", "text-single", &count(config.items_max));
    out.extend_from_slice(b"</x>");
}

fn count(items_max: u32) -> String {
    match items_max {
        u32::MAX => MAX.into(),
        count => count.to_string(),
    }
}

fn begin(out: &mut Vec<u8>, type_: &str, kind: &str) {
    put(
        out,
        format_args!(
            "<x xmlns='jabber:x:data' type='{type_}'><field var='FORM_TYPE' type='hidden'>\
             <value>{kind}</value></field>"
        ),
    );
}

fn field(out: &mut Vec<u8>, name: &str, type_: &str, value: &str) {
    let value = Attr(value);
    put(
        out,
        format_args!("<field var='pubsub#{name}' type='{type_}'><value>{value}</value></field>"),
    );
}

fn choice<T: Copy>(
    out: &mut Vec<u8>,
    name: &str,
    value: &str,
    all: &[T],
    text: impl Fn(T) -> &'static str,
) {
    put(
        out,
        format_args!("<field var='pubsub#{name}' type='list-single'><value>{value}</value>"),
    );
    for &one in all {
        let one = text(one);
        put(out, format_args!("<option><value>{one}</value></option>"));
    }
    out.extend_from_slice(b"</field>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_as_its_form_says() {
        let mut config = NodeConfig::default();
        let form = as_fields(&[
            ("pubsub#access_model", "whitelist"),
            ("pubsub#max_items", "max"),
            ("pubsub#persist_items", "true"),
            ("pubsub#send_last_published_item", "never"),
            ("pubsub#item_expire", "60"),
        ]);
        assert_eq!(apply(&mut config, &form), Ok(()));
        assert_eq!(config.access, AccessModel::Whitelist);
        assert_eq!(
            (config.items_max, config.send_last),
            (u32::MAX, SendLast::Never)
        );
    }

    #[test]
    fn what_no_node_can_be_is_refused() {
        let long = "x".repeat(TEXT_SIZE_MAX + 1);
        for (var, value) in [
            ("pubsub#access_model", "authorize"),
            ("pubsub#publish_model", "x"),
            ("pubsub#max_items", "0"),
            ("pubsub#max_items", "-1"),
            ("pubsub#persist_items", "yes"),
            ("pubsub#notification_type", "chat"),
            ("pubsub#title", &long),
        ] {
            let mut config = NodeConfig::default();
            let applied = apply(&mut config, &as_fields(&[(var, value)]));
            let condition = applied.map_err(Refusal::condition);
            assert_eq!(condition, Err(StanzaError::NotAcceptable), "{var} {value}");
        }
        let many = vec!["g".into(); GROUPS_MAX + 1];
        let groups = vec![("pubsub#roster_groups_allowed".into(), many)];
        assert!(apply(&mut NodeConfig::default(), &groups).is_err());
    }

    #[test]
    fn what_a_publisher_expects_is_so_or_is_refused() {
        let config = NodeConfig::default();
        let expected = |var, value| {
            let outcome = expect(&config, &as_fields(&[(var, value)]));
            outcome.map_err(Refusal::condition)
        };
        assert_eq!(expected("pubsub#access_model", "presence"), Ok(()));
        assert_eq!(expected("pubsub#max_items", "1"), Ok(()));
        let conflict = Err(StanzaError::Conflict);
        assert_eq!(expected("pubsub#access_model", "open"), conflict);
        assert_eq!(expected("pubsub#access_model", "authorize"), conflict);
        let unknown = Err(StanzaError::BadRequest);
        assert_eq!(expected("pubsub#item_expire", "60"), unknown);
        let mut made = NodeConfig::default();
        let form = as_fields(&[("pubsub#item_expire", "60")]);
        let prepared = prepare(&mut made, &form).map_err(Refusal::condition);
        assert_eq!(prepared, unknown);
    }
}
