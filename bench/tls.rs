//! TLS per record and per handshake: sealing and opening 200 bytes and 16 KiB, and a full TLS 1.3
//! handshake with ECDSA P-256, both sides on this core.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use runtime::transport::tls::{ServerConfig, Tls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

/// A message, and as much as one record holds.
const SIZES: [usize; 2] = [200, 16 << 10];

/// Records opened or sealed per batch, so that the set-up of a batch does not show.
const RECORDS: usize = 64;

const DOMAIN: &str = "example.org";

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    fn new() -> Configs {
        let place = std::env::temp_dir().join(format!("vorpal-bench-tls-{}", std::process::id()));
        let server = runtime::certificate::self_signed(&place, DOMAIN).expect("a certificate");
        let file = place.join(format!("{DOMAIN}.crt"));
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(file).expect("just written"))
            .expect("a certificate");
        std::fs::remove_dir_all(&place).expect("the directory is ours");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Configs {
            server: server.starttls,
            client: Arc::new(client),
        }
    }

    /// A connection from its first byte to the facts.
    fn shake(&self) -> (ClientConnection, Tls) {
        let name = ServerName::try_from(DOMAIN).expect("a name");
        let mut client = ClientConnection::new(self.client.clone(), name).expect("a client");
        let mut server = Tls::accept(&self.server);
        loop {
            let mut bytes = sent(&mut client);
            let mut answer = Vec::new();
            let opened = server
                .open(&mut bytes, &mut |_: &[u8]| (), &mut answer)
                .expect("good records");
            if opened.secured {
                black_box(server.facts());
                // What the server's own layer seals and opens is measured, and not rustls.
                let rest = server.open(
                    &mut bytes[opened.consumed..],
                    &mut |_: &[u8]| (),
                    &mut answer,
                );
                assert!(!rest.expect("nothing is left").secured);
                return (client, server);
            }
            let mut answer = &answer[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).expect("memory");
                client.process_new_packets().expect("good records");
            }
        }
    }
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

fn seal(criterion: &mut Criterion) {
    let configs = Configs::new();
    let mut group = criterion.benchmark_group("tls/seal");
    for size in SIZES {
        let (_client, mut server) = configs.shake();
        let plain = vec![b'x'; size];
        let mut out = Vec::new();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| {
                out.clear();
                server.seal(black_box(&plain), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let configs = Configs::new();
    let mut group = criterion.benchmark_group("tls/open");
    for size in SIZES {
        let (mut client, mut server) = configs.shake();
        client.set_buffer_limit(None);
        let plain = vec![b'x'; size];
        group.throughput(Throughput::Bytes((size * RECORDS) as u64));
        group.bench_function(format!("{RECORDS}x{size}"), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut bytes = Vec::new();
                    for _ in 0..RECORDS {
                        client.writer().write_all(&plain).expect("memory");
                        bytes.extend(sent(&mut client));
                    }
                    bytes
                },
                |bytes| {
                    let mut count = 0;
                    let mut take = |plain: &[u8]| count += plain.len();
                    let opened = server.open(bytes, &mut take, &mut Vec::new());
                    assert_eq!(opened.expect("good records").consumed, bytes.len());
                    assert_eq!(count, size * RECORDS);
                },
                // The records of a batch must come in order: one batch, one input.
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn handshake(criterion: &mut Criterion) {
    let configs = Configs::new();
    let (mut client, mut server) = configs.shake();
    let mut out = Vec::new();
    server.seal(b"ready", &mut out);
    client.read_tls(&mut &out[..]).expect("memory");
    client.process_new_packets().expect("good records");
    let mut plain = [0; 5];
    client.reader().read_exact(&mut plain).expect("it is there");
    assert_eq!(&plain, b"ready");
    criterion.bench_function("tls/handshake (both sides)", |bencher| {
        bencher.iter(|| configs.shake());
    });
}

criterion_group!(benches, seal, open, handshake);
criterion_main!(benches);
