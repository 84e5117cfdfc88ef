//! The commands there are (XEP-0133): their nodes, and the forms that they ask for.

use super::administration::{Command, Kind};
use super::form::{Field, Form};

/// The kind of all forms of administration (XEP-0133 8.2).
pub(super) const ADMIN: &str = "http://jabber.org/protocol/admin";

/// What stands for as many names as the server gives.
pub(super) const NO_MAXIMUM: &str = "none";

const fn required(var: &'static str, type_: &'static str, label: &'static str) -> Field {
    Field {
        var,
        type_,
        label,
        is_required: true,
        options: &[],
    }
}

const ACCOUNT: Field = required("accountjid", "jid-single", "The address of the account");
const ACCOUNTS: Field = required("accountjids", "jid-multi", "The addresses of the accounts");
const PASSWORD: Field = required("password", "text-private", "The password");

const NAMES_MAX: Field = Field {
    var: "max_items",
    type_: "list-single",
    label: "How many to show",
    is_required: false,
    options: &[
        ("25", "25"),
        ("50", "50"),
        ("75", "75"),
        ("100", "100"),
        ("150", "150"),
        ("200", "200"),
        ("As many as possible", NO_MAXIMUM),
    ],
};

const DELAY: Field = Field {
    var: "delay",
    type_: "list-single",
    label: "How long to wait before that",
    is_required: false,
    options: &[
        ("Not at all", "0"),
        ("30 seconds", "30"),
        ("60 seconds", "60"),
        ("90 seconds", "90"),
        ("2 minutes", "120"),
        ("3 minutes", "180"),
        ("4 minutes", "240"),
        ("5 minutes", "300"),
    ],
};

const fn form(title: &'static str, instructions: &'static str, fields: &'static [Field]) -> Form {
    Form {
        kind: ADMIN,
        title,
        instructions,
        fields,
    }
}

/// All of them, in the order of the XEP.
pub(super) static COMMANDS: &[Command] = &[
    Command {
        kind: Kind::AddUser,
        node: "http://jabber.org/protocol/admin#add-user",
        name: "Add User",
        form: Some(form(
            "Add a user",
            "Say who is to have an account, and with which password.",
            &[
                ACCOUNT,
                PASSWORD,
                required("password-verify", "text-private", "The password once more"),
            ],
        )),
    },
    Command {
        kind: Kind::DeleteUser,
        node: "http://jabber.org/protocol/admin#delete-user",
        name: "Delete User",
        form: Some(form(
            "Delete users",
            "Say whose accounts are to go, with all that is in them.",
            &[ACCOUNTS],
        )),
    },
    Command {
        kind: Kind::EndUserSession,
        node: "http://jabber.org/protocol/admin#end-user-session",
        name: "End User Session",
        form: Some(form(
            "End sessions",
            "Say whose sessions are to end: a resource names one, an address without one all.",
            &[ACCOUNTS],
        )),
    },
    Command {
        kind: Kind::ChangeUserPassword,
        node: "http://jabber.org/protocol/admin#change-user-password",
        name: "Change User Password",
        form: Some(form(
            "Change a password",
            "Say whose password is to be another one. All sessions of the account end.",
            &[ACCOUNT, PASSWORD],
        )),
    },
    Command {
        kind: Kind::GetUserLastlogin,
        node: "http://jabber.org/protocol/admin#get-user-lastlogin",
        name: "Get User Last Login Time",
        form: Some(form(
            "See when users were there last",
            "Say which users.",
            &[ACCOUNTS],
        )),
    },
    Command {
        kind: Kind::GetUserStats,
        node: "http://jabber.org/protocol/admin#get-user-stats",
        name: "Get User Statistics",
        form: Some(form(
            "See how an account is used",
            "Say which account.",
            &[ACCOUNT],
        )),
    },
    Command {
        kind: Kind::GetRegisteredUsersNum,
        node: "http://jabber.org/protocol/admin#get-registered-users-num",
        name: "Get Number of Registered Users",
        form: None,
    },
    Command {
        kind: Kind::GetOnlineUsersNum,
        node: "http://jabber.org/protocol/admin#get-online-users-num",
        name: "Get Number of Online Users",
        form: None,
    },
    Command {
        kind: Kind::GetRegisteredUsersList,
        node: "http://jabber.org/protocol/admin#get-registered-users-list",
        name: "Get List of Registered Users",
        form: Some(form(
            "See who has an account",
            "Say how many are to be shown.",
            &[NAMES_MAX],
        )),
    },
    Command {
        kind: Kind::GetOnlineUsersList,
        node: "http://jabber.org/protocol/admin#get-online-users-list",
        name: "Get List of Online Users",
        form: Some(form(
            "See who is online",
            "Say how many are to be shown.",
            &[NAMES_MAX],
        )),
    },
    Command {
        kind: Kind::Announce,
        node: "http://jabber.org/protocol/admin#announce",
        name: "Send Announcement to Online Users",
        form: Some(form(
            "Make an announcement",
            "Say what all who are online are to be told.",
            &[required("announcement", "text-multi", "The announcement")],
        )),
    },
    Command {
        kind: Kind::Shutdown,
        node: "http://jabber.org/protocol/admin#shutdown",
        name: "Shut Down Service",
        form: Some(form(
            "Shut the server down",
            "Say when it is to end, and what all who are online are to be told before.",
            &[
                DELAY,
                Field {
                    is_required: false,
                    ..required("announcement", "text-multi", "The announcement")
                },
            ],
        )),
    },
];
