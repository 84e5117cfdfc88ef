//! tokio-xmpp against the server under test: SCRAM with channel binding, then a chat.
//!
//! `tokio-client HOST PORT TLS_PORT PASSWORD JID JID binding|chat`, where the two are mutual
//! contacts. Trust comes from `SSL_CERT_FILE`; rustls checks the certificate. Ends with status 0
//! after all of it happened, and says on the first line of standard error what did not.

use std::time::Duration;

use futures::StreamExt;
use sasl::common::{ChannelBinding, Credentials};
use tokio_xmpp::connect::{
    DirectTlsServerConnector, DnsConfig, ServerConnector, StartTlsServerConnector,
};
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::message::{Lang, Message, MessageType};
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::presence::{Presence, Type as PresenceType};
use tokio_xmpp::parsers::stanza_error::StanzaError;
use tokio_xmpp::parsers::stream_features::StreamFeatures;
use tokio_xmpp::rustls::crypto::ring;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, XmppStream};
use tokio_xmpp::{Client, Event, Stanza};

const PLUS: &str = "SCRAM-SHA-256-PLUS";
const SECONDS_MAX: u64 = 60;
const MESSAGES: usize = 20;

type Outcome = Result<(), String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    ring::default_provider()
        .install_default()
        .expect("no other provider is installed");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, tls_port, password, one, two, what] = arguments.as_slice() else {
        eprintln!("usage: tokio-client HOST PORT TLS_PORT PASSWORD JID JID binding|chat");
        return 2.into();
    };
    let starttls = DnsConfig::Addr {
        addr: format!("{host}:{port}"),
    };
    let direct = DnsConfig::Addr {
        addr: format!("{host}:{tls_port}"),
    };
    let jids = (one.parse().expect("a JID"), two.parse().expect("a JID"));
    let all = async {
        if what == "binding" {
            let tls = StartTlsServerConnector(starttls);
            bound_login(tls, &jids.0, password)
                .await
                .map_err(|e| format!("STARTTLS: {e}"))?;
            let tls = DirectTlsServerConnector(direct);
            bound_login(tls, &jids.0, password)
                .await
                .map_err(|e| format!("direct TLS: {e}"))
        } else {
            chat(starttls, &jids.0, &jids.1, password).await
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(SECONDS_MAX), all).await;
    match outcome.unwrap_or_else(|_| Err(format!("nothing more within {SECONDS_MAX} s"))) {
        Ok(()) => 0.into(),
        Err(what) => {
            eprintln!("{what}");
            1.into()
        }
    }
}

/// Logs in with SCRAM-SHA-256-PLUS over tls-exporter and no other mechanism.
async fn bound_login<C: ServerConnector>(server: C, jid: &Jid, password: &str) -> Outcome {
    let said = |error: tokio_xmpp::Error| format!("{error}");
    let (stream, binding) = server
        .connect(jid, ns::JABBER_CLIENT, Timeouts::default())
        .await
        .map_err(said)?;
    if !matches!(binding, ChannelBinding::TlsExporter(_)) {
        return Err("the connection is not TLS 1.3".to_owned());
    }
    let (features, stream) = stream.recv_features().await.map_err(|e| e.to_string())?;
    if !features.sasl_mechanisms.contains(PLUS) {
        return Err(format!(
            "{PLUS} is not offered: {:?}",
            features.sasl_mechanisms
        ));
    }
    let credentials = Credentials::default()
        .with_username(jid.node().expect("an account").as_str())
        .with_password(password)
        .with_channel_binding(binding);
    // `client_login` verifies the server's signature before it returns.
    let stream = tokio_xmpp::client_login(stream, [PLUS.to_owned()].into(), credentials)
        .await
        .map_err(said)?;
    let to = Some(jid.domain().as_str().to_owned().into());
    let header = StreamHeader {
        to,
        from: None,
        id: None,
    };
    let stream = stream
        .send_header(header)
        .await
        .map_err(|e| e.to_string())?;
    let (features, _): (StreamFeatures, XmppStream<C::Stream>) =
        stream.recv_features().await.map_err(|e| e.to_string())?;
    if !features.can_bind() {
        return Err("no bind after authentication".to_owned());
    }
    Ok(())
}

/// Two clients: contacts' presence, chat both ways, an error for a nonexistent user.
async fn chat(server: DnsConfig, one: &Jid, two: &Jid, password: &str) -> Outcome {
    let connect = |jid: &Jid| {
        Client::new_starttls(jid.clone(), password, server.clone(), Timeouts::default())
    };
    let (mut alice, mut bob) = (connect(one), connect(two));
    online(&mut alice).await?;
    online(&mut bob).await?;
    send(&mut alice, Presence::new(PresenceType::None)).await?;
    send(&mut bob, Presence::new(PresenceType::None)).await?;
    sees(&mut alice, two).await?;
    sees(&mut bob, one).await?;
    for count in 0..MESSAGES {
        let body = format!("number {count} <&> \u{1f98a}");
        send(&mut alice, message(two, &body)).await?;
        let (sender, _) = receive(&mut bob, &body, MessageType::Chat).await?;
        send(&mut bob, message(&sender, &body)).await?;
        receive(&mut alice, &body, MessageType::Chat).await?;
    }
    let nobody: Jid = format!("nobody@{}", one.domain()).parse().expect("a JID");
    send(&mut alice, message(&nobody, "hello?")).await?;
    let (sender, error) = receive_error(&mut alice).await?;
    if sender != nobody {
        return Err(format!("the error came from {sender}"));
    }
    let wanted = "ServiceUnavailable";
    if format!("{:?}", error.defined_condition) != wanted {
        return Err(format!("{:?} instead of {wanted}", error.defined_condition));
    }
    alice.send_end().await.map_err(|e| e.to_string())?;
    bob.send_end().await.map_err(|e| e.to_string())
}

fn message(to: &Jid, body: &str) -> Message {
    let mut message = Message::new(Some(to.clone()));
    message.type_ = MessageType::Chat;
    message.bodies.insert(Lang::default(), body.to_owned());
    message
}

async fn send(client: &mut Client, stanza: impl Into<Stanza>) -> Outcome {
    client
        .send_stanza(stanza.into())
        .await
        .map(drop)
        .map_err(|e| e.to_string())
}

async fn next(client: &mut Client) -> Result<Event, String> {
    match client.next().await {
        Some(Event::Disconnected(error)) => Err(format!("disconnected: {error}")),
        Some(event) => Ok(event),
        None => Err("the stream ended".to_owned()),
    }
}

async fn online(client: &mut Client) -> Outcome {
    while !next(client).await?.is_online() {}
    Ok(())
}

async fn sees(client: &mut Client, contact: &Jid) -> Outcome {
    loop {
        if let Event::Stanza(Stanza::Presence(presence)) = next(client).await?
            && presence.type_ == PresenceType::None
            && presence
                .from
                .is_some_and(|from| from.to_bare() == contact.to_bare())
        {
            return Ok(());
        }
    }
}

async fn next_message(client: &mut Client) -> Result<Message, String> {
    loop {
        if let Event::Stanza(Stanza::Message(message)) = next(client).await? {
            return Ok(message);
        }
    }
}

async fn receive(
    client: &mut Client,
    body: &str,
    kind: MessageType,
) -> Result<(Jid, Message), String> {
    let message = next_message(client).await?;
    let right = message.type_ == kind && message.bodies.values().any(|text| text == body);
    if !right {
        return Err(format!("{body:?} was awaited, {message:?} came"));
    }
    let sender = message.from.clone().ok_or("a message without a sender")?;
    Ok((sender, message))
}

async fn receive_error(client: &mut Client) -> Result<(Jid, StanzaError), String> {
    let message = next_message(client).await?;
    if message.type_ != MessageType::Error {
        return Err(format!("an error was awaited, {message:?} came"));
    }
    let payload = message
        .payloads
        .into_iter()
        .find(|p| p.is("error", ns::JABBER_CLIENT));
    let error = payload.ok_or("an error stanza without <error/>")?;
    let error = StanzaError::try_from(error).map_err(|e| e.to_string())?;
    Ok((message.from.ok_or("an error without a sender")?, error))
}
