//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL password`.

use super::{First, Password, SaslError, account_of, check_authzid};

/// Takes the message apart; the password is prepared where it is verified, away from the shard.
pub(super) fn parse(message: &[u8], domain: &str) -> Result<First, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::MalformedRequest)?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::MalformedRequest);
    };
    if authcid.is_empty() || password.is_empty() {
        return Err(SaslError::MalformedRequest);
    }
    let account = account_of(authcid, domain)?;
    check_authzid(authzid, &account, domain)?;
    Ok(First::Plain {
        account,
        password: Password::new(password.to_owned()),
    })
}
