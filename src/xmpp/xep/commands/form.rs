//! The forms of commands (XEP-0004): what they ask for, and whether it was given.

use super::super::pubsub::form::Fields;
use crate::error::put;
use crate::xml::Attr;

/// Values of one field.
pub(super) const VALUES_MAX: usize = 1_000;

/// A form that is to be filled in.
#[derive(Debug)]
pub(super) struct Form {
    /// What it is of, its FORM_TYPE (XEP-0068).
    pub kind: &'static str,
    pub title: &'static str,
    pub instructions: &'static str,
    pub fields: &'static [Field],
}

/// One of its fields.
#[derive(Debug)]
pub(super) struct Field {
    pub var: &'static str,
    /// Its type (XEP-0004 3.3).
    pub type_: &'static str,
    pub label: &'static str,
    pub is_required: bool,
    /// What it may be, each with its label; anything where there is nothing here.
    pub options: &'static [(&'static str, &'static str)],
}

impl Field {
    fn takes_many(&self) -> bool {
        self.type_.ends_with("-multi")
    }

    fn admits(&self, values: &[Box<str>]) -> bool {
        let is_option = |value: &str| self.options.iter().any(|(_, option)| *option == value);
        let count_max = if self.takes_many() { VALUES_MAX } else { 1 };
        values.len() <= count_max
            && (self.options.is_empty() || values.iter().all(|value| is_option(value)))
            && !(self.is_required && values.iter().all(|value| value.is_empty()))
    }
}

impl Form {
    /// What was filled in, as far as it was asked for; `None` where it does not answer the form.
    pub(super) fn accept(&self, mut given: Fields) -> Option<Fields> {
        let kinds = given.iter().find(|(var, _)| &**var == "FORM_TYPE");
        if kinds.is_some_and(|(_, kinds)| *kinds != [Box::from(self.kind)]) {
            return None;
        }
        let mut accepted = Fields::new();
        for field in self.fields {
            let place = given.iter().position(|(var, _)| **var == *field.var);
            let values = place.map_or_else(Vec::new, |place| given.swap_remove(place).1);
            if !field.admits(&values) {
                return None;
            }
            accepted.push((field.var.into(), values));
        }
        Some(accepted)
    }

    /// Writes it, to be filled in.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "<x xmlns='jabber:x:data' type='form'><title>{}</title>\
                 <instructions>{}</instructions>\
                 <field var='FORM_TYPE' type='hidden'><value>{}</value></field>",
                Attr(self.title),
                Attr(self.instructions),
                Attr(self.kind)
            ),
        );
        for field in self.fields {
            let (var, type_, label) = (field.var, field.type_, Attr(field.label));
            put(
                out,
                format_args!("<field var='{var}' type='{type_}' label='{label}'>"),
            );
            if field.is_required {
                out.extend_from_slice(b"<required/>");
            }
            for (label, option) in field.options {
                let (label, option) = (Attr(label), Attr(option));
                put(
                    out,
                    format_args!("<option label='{label}'><value>{option}</value></option>"),
                );
            }
            out.extend_from_slice(b"</field>");
        }
        out.extend_from_slice(b"</x>");
    }
}

/// The values of a field.
pub(super) fn values<'a>(said: &'a Fields, var: &str) -> &'a [Box<str>] {
    let found = said.iter().find(|(known, _)| **known == *var);
    found.map_or(&[], |(_, values)| values)
}

/// A form of results.
pub(super) struct Results<'a>(&'a mut Vec<u8>);

impl<'a> Results<'a> {
    pub(super) fn open(kind: &str, out: &'a mut Vec<u8>) -> Results<'a> {
        put(
            out,
            format_args!(
                "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'>\
                 <value>{}</value></field>",
                Attr(kind)
            ),
        );
        Results(out)
    }

    /// Writes a field; `type_` says how its values are to be read.
    pub(super) fn field<T: AsRef<str>>(
        self,
        (var, type_, label): (&str, &str, &str),
        values: impl IntoIterator<Item = T>,
    ) -> Results<'a> {
        put(
            self.0,
            format_args!("<field var='{var}' type='{type_}' label='{}'>", Attr(label)),
        );
        for value in values {
            put(
                self.0,
                format_args!("<value>{}</value>", Attr(value.as_ref())),
            );
        }
        self.0.extend_from_slice(b"</field>");
        self
    }

    pub(super) fn close(self) {
        self.0.extend_from_slice(b"</x>");
    }
}
