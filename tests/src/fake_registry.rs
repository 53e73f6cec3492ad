//! A registry of images that is strict with its clients, differs from the specification where a
//! test says so (as Amazon ECR does, which no emulator speaks), and goes wrong when a test says so.
//!
//! Read in this order: [`FakeRegistry`] (what a test does with it), [`quirk`] (in what it differs),
//! [`fault`] (what goes wrong), `state` (what it has), `uploads`, `blobs` and `manifests` (the OCI
//! distribution specification 1.1), `door` and `aws` (who may), `wire` (HTTP).
//!
//! **Architecture invariant:** it listens on loopback alone, on ports that the kernel chose unless
//! the network is the test's own.
//!
//! **Architecture invariant:** what a client must never do (credentials sent on to another host, a
//! location that is not the last one, a range that is none) is refused *and* remembered, so that a
//! test sees it also where the client found a way around: [`FakeRegistry::assert_was_asked_rightly`].

mod aws;
mod blobs;
mod door;
pub mod fault;
mod manifests;
mod problem;
pub mod quirk;
mod state;
#[cfg(test)]
mod tests;
mod uploads;
mod wire;

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use regex::Regex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

pub use self::{
    fault::Fault,
    quirk::{Anonymous, Bearer, Door, Lifetime, Quirk, Settings},
    state::Asked,
};
use self::{
    fault::Trouble,
    problem::Problem,
    state::{Manifest, State},
    wire::{Body, Head, Reply, Wire},
};
use crate::{namespace::Namespace, scratch::Scratch, store};

/// The account whose registry it is, when it is asked as ECR.
pub const ACCOUNT: &str = "123456789012";
/// Its host in the eyes of those who think it is ECR.
pub const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// A registry that runs until its value is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    dir: Scratch,
    port: u16,
    storage_port: u16,
    state: Mutex<State>,
    live: Mutex<HashMap<usize, Live>>,
    connections: Mutex<HashMap<u64, TcpStream>>,
}

/// How far the bodies of a request and its answer are.
#[derive(Clone, Debug, Default)]
struct Live {
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Registry,
    Storage,
}

impl FakeRegistry {
    /// Starts one that does what the specification says, and lets everyone in.
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    /// Starts one that does all that Amazon ECR does.
    pub fn ecr() -> Self {
        Self::with(Settings::ecr(Lifetime::Unlimited))
    }

    /// Starts one.
    pub fn with(settings: Settings) -> Self {
        Self::listening(settings, &listen_at)
    }

    /// Starts one inside, on a port that has a meaning (80 for a host without one).
    pub fn start_in(namespace: &Namespace, port: u16, settings: Settings) -> Self {
        let network = format!("/proc/{}/ns/net", namespace.id());
        Self::listening(settings, &|address, _| {
            let network = File::open(&network).expect("the network of a namespace");
            // The storage's port means nothing.
            let port = if address == REGISTRY { port } else { 0 };
            let listen = move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), kind)
                    .expect("a thread that may enter a network: this needs root");
                listen_at(address, port)
            };
            // A thread of its own, since it stays there; a socket belongs to where it was made.
            thread::spawn(listen).join().expect("a thread that listens")
        })
    }

    fn listening(settings: Settings, listen: &dyn Fn(Ipv4Addr, u16) -> TcpListener) -> Self {
        let (registry, storage) = (listen(REGISTRY, 0), listen(STORAGE, 0));
        let dir = Scratch::new();
        for folder in ["blobs", "uploads"] {
            fs::create_dir(dir.join(folder)).expect("folder of a registry");
        }
        let port = |it: &TcpListener| it.local_addr().expect("the port").port();
        let shared = Arc::new(Shared {
            dir,
            port: port(&registry),
            storage_port: port(&storage),
            state: Mutex::new(State { settings, ..State::default() }),
            live: Mutex::default(),
            connections: Mutex::default(),
        });
        serve(registry, &shared, Side::Registry);
        serve(storage, &shared, Side::Storage);
        Self { shared }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.shared.host()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The name of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// From now on this goes wrong.
    pub fn inject(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// How many faults are still to come: a test whose fault never came has shown nothing.
    pub fn faults_left(&self) -> usize {
        self.shared.state().faults.iter().map(Fault::left).sum()
    }

    /// From now on it differs in this way, too.
    pub fn becomes(&self, quirk: Quirk) {
        self.shared.state().settings.quirks.insert(quirk);
    }

    /// Makes a repository, as someone would who may.
    pub fn create_repository(&self, name: &str) {
        self.shared.state().repositories.entry(name.to_owned()).or_default();
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        let mut asked = self.shared.state().asked.clone();
        let live = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, Live { received, sent }) in &*live {
            asked[*index].received = received.load(Ordering::Relaxed);
            asked[*index].sent = sent.load(Ordering::Relaxed);
        }
        asked
    }

    /// What it was asked about a repository so far: `METHOD PATH STATUS`, in order.
    pub fn requests(&self, repository: &str) -> Vec<String> {
        let wanted = format!("/v2/{repository}/");
        let asked = self.asked();
        asked.iter().filter(|it| it.path.starts_with(&wanted)).map(ToString::to_string).collect()
    }

    /// The calls of AWS's API that came: their names and inputs.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.shared.state().calls.clone()
    }

    /// How many tokens and passwords it gave out.
    pub fn tokens_given(&self) -> usize {
        self.shared.state().tokens.given()
    }

    /// A password for the user `AWS`, as AWS's API gives it.
    pub fn password(&self) -> String {
        let mut state = self.shared.state();
        let lifetime = match state.settings.door {
            Door::Aws(lifetime) => lifetime,
            _ => Lifetime::Unlimited,
        };
        state.tokens.give(Vec::new(), lifetime)
    }

    /// Ends all tokens and passwords that were given out.
    pub fn end_tokens(&self) {
        self.shared.state().tokens.end();
    }

    /// Ends all tokens and passwords, once, after so many more requests that bring one.
    pub fn end_tokens_after(&self, requests: u32) {
        self.shared.state().tokens.end_after(requests);
    }

    /// The tags of a repository, and the digests that they stand for.
    pub fn tags(&self, repository: &str) -> Vec<(String, String)> {
        let state = self.shared.state();
        let tags = state.repositories.get(repository).into_iter().flat_map(|it| &it.tags);
        tags.map(|(tag, digest)| (tag.clone(), digest.clone())).collect()
    }

    /// A manifest: its media type and bytes.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Vec<u8>)> {
        let state = self.shared.state();
        let repository = state.repositories.get(repository)?;
        let Manifest { media_type, bytes, .. } = &repository.manifests[repository.resolve(name)?];
        Some((media_type.clone(), bytes.clone()))
    }

    /// The digests of all blobs of a repository.
    pub fn blobs(&self, repository: &str) -> BTreeSet<String> {
        let state = self.shared.state();
        state.repositories.get(repository).map(|it| it.blobs.clone()).unwrap_or_default()
    }

    /// The file that holds a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.shared.blob(digest)
    }

    /// Gives a repository a blob; returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        fs::write(self.blob(&digest), bytes).expect("blob of a registry");
        self.create_repository(repository);
        let mut state = self.shared.state();
        let target = state.repositories.get_mut(repository).expect("a repository");
        target.blobs.insert(digest.clone());
        digest
    }

    /// Gives a repository a manifest under a tag, whatever is in it; returns its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = digest_of(bytes);
        let value = serde_json::from_slice(bytes).unwrap_or_default();
        let media_type = media_type.to_owned();
        let manifest = Manifest { media_type, bytes: bytes.to_owned(), value };
        self.create_repository(repository);
        let mut state = self.shared.state();
        let target = state.repositories.get_mut(repository).expect("a repository");
        target.manifests.insert(digest.clone(), manifest);
        target.tags.insert(tag.to_owned(), digest.clone());
        digest
    }

    /// Asserts that no client did what a client must not do.
    #[track_caller]
    pub fn assert_was_asked_rightly(&self) {
        let violations = self.shared.state().violations.clone();
        assert!(violations.is_empty(), "{violations:#?}\n{}", self.log());
    }

    /// Asserts that every blob is what its name says, and that what manifests name is there.
    #[track_caller]
    pub fn assert_is_whole(&self) {
        for path in store::files(&self.shared.folder("blobs")) {
            let name = path.file_name().expect("name of a blob").to_string_lossy();
            assert_eq!(name, store::sha256(&path), "{} is not what its name says", path.display());
        }
        let state = self.shared.state();
        for (name, repository) in &state.repositories {
            for manifest in repository.manifests.values() {
                let mut blobs = state::blobs_of(&manifest.value);
                let has = |it: &Value| {
                    it["digest"].as_str().is_some_and(|it| repository.blobs.contains(it))
                };
                assert!(blobs.all(has), "a manifest of `{name}` lacks blobs");
            }
        }
    }

    /// All that it was asked, a line each, for the message of a failed test.
    pub fn log(&self) -> String {
        let lines = self.asked().into_iter();
        let lines = lines.map(|it| format!("{it} ({} in, {} out)", it.received, it.sent));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in connections.values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    /// What changes. A test that failed while it held this is not the registry's affair.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> String {
        format!("{REGISTRY}:{}", self.port)
    }

    fn storage_host(&self) -> String {
        format!("{STORAGE}:{}", self.storage_port)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.folder("blobs").join(digest.trim_start_matches("sha256:"))
    }

    /// A path as a `Location`: as the client named us, where it is to be a whole URL.
    fn location(&self, head: &Head, path: &str) -> String {
        match head.header("host").filter(|_| self.state().has(Quirk::AbsoluteLocations)) {
            Some(host) => format!("http://{host}{path}"),
            None => path.to_owned(),
        }
    }

    /// Takes note of a request; returns its number and how far it is.
    fn remember(&self, head: &Head) -> (usize, Live) {
        let Head { method, path, query, headers } = head.clone();
        let mut state = self.state();
        let number = state.asked.len();
        let (received, status, sent) = (0, 0, 0);
        state.asked.push(Asked { method, path, query, headers, received, status, sent });
        let live = Live::default();
        let mut all = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(number, live.clone());
        (number, live)
    }
}

/// Where registries listen.
const REGISTRY: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where their storage listens: another host, in the eyes of every client.
const STORAGE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn listen_at(address: Ipv4Addr, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).expect("a port on loopback")
}

/// Answers on threads of its own until the registry is dropped.
fn serve(listener: TcpListener, shared: &Arc<Shared>, side: Side) {
    let shared: Weak<Shared> = Arc::downgrade(shared);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().filter_map(Result::ok).enumerate() {
            let Some(shared) = shared.upgrade() else { return };
            let number = (number as u64) << 1 | u64::from(side == Side::Storage);
            thread::spawn(move || {
                if let Ok(copy) = stream.try_clone() {
                    shared.connections().insert(number, copy);
                }
                // A client that goes away in the middle is its own affair.
                drop(converse(&shared, stream, side));
                shared.connections().remove(&number);
            });
        }
    });
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the requests of one connection.
fn converse(shared: &Shared, stream: TcpStream, side: Side) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    loop {
        match wire.head() {
            Ok(Some(head)) if exchange(shared, &mut wire, &head, side)? => {}
            Ok(_) => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                shared.state().accuse(format!("no HTTP: {err}"));
                return Err(err);
            }
            Err(err) => return Err(err),
        }
    }
}

/// Answers one request. Whether another may follow.
fn exchange(shared: &Shared, wire: &mut Wire, head: &Head, side: Side) -> io::Result<bool> {
    let (number, live) = shared.remember(head);
    let trouble = fault::strike(&mut shared.state().faults, head);
    let mut body = match wire.body(head, trouble.clone(), &live.received) {
        Ok(body) => body,
        Err(err) => {
            shared.state().accuse(format!("{} {}: {err}", head.method, head.path));
            return Err(err);
        }
    };
    let has_body = body.length() != Some(0);
    let reply =
        fault::refusal(trouble.as_ref()).unwrap_or_else(|| answer(shared, head, &mut body, side));
    if body.is_broken {
        return Ok(false);
    }
    let is_over = body.finish();
    if trouble == Some(Trouble::Mute) {
        wire.cut();
        return Ok(false);
    }
    let mut reply = if is_over { reply } else { reply.with("Connection", "close") };
    if trouble == Some(Trouble::WrongDigest) {
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        reply = reply.with("Docker-Content-Digest", digest_of(b"another"));
    }
    shared.state().asked[number].status = reply.status;
    let trouble = trouble.filter(|it| !has_body || matches!(it, Trouble::LyingLength(_)));
    wire.send(head, reply, trouble, &live.sent)?;
    if !is_over {
        wire.close();
    }
    Ok(is_over)
}

fn answer(shared: &Shared, head: &Head, body: &mut Body<'_>, side: Side) -> Reply {
    let outcome = match (side, &*head.method, &*head.path) {
        (Side::Storage, ..) => match head.path.strip_prefix("/storage/") {
            Some(digest) => blobs::stored(shared, digest, head),
            None => Err(Problem::unsupported()),
        },
        (_, "POST", "/") if head.header("x-amz-target").is_some() => {
            return aws::call(shared, head, body);
        }
        (_, "GET", "/token") => return door::token(shared, head),
        _ => match door::check(shared, head) {
            Some(refusal) => return refusal.with(VERSION.0, VERSION.1),
            None => route(shared, head, body),
        },
    };
    let reply = outcome.unwrap_or_else(Reply::from);
    if side == Side::Registry { reply.with(VERSION.0, VERSION.1) } else { reply }
}

const VERSION: (&str, &str) = ("Docker-Distribution-Api-Version", "registry/2.0");

/// The endpoints of the specification.
fn route(shared: &Shared, head: &Head, body: &mut Body<'_>) -> Result<Reply, Problem> {
    let path = head.path.replace("%3A", ":").replace("%3a", ":");
    let rest = path.strip_prefix("/v2/").ok_or_else(Problem::unsupported)?;
    let method = &*head.method;
    if rest.is_empty() {
        return match method {
            "GET" | "HEAD" => Ok(Reply::new(200).body("application/json", "{}")),
            _ => Err(Problem::unsupported()),
        };
    }
    let kinds = ["/blobs/uploads/", "/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let found = kinds.iter().find_map(|kind| Some((kind, rest.rsplit_once(kind)?)));
    let Some((kind, (name, last))) = found else { return Err(Problem::unsupported()) };
    if !is_name(name) {
        return Err(Problem::new(400, "NAME_INVALID", format!("`{name}` is no repository's name")));
    }
    match (*kind, method) {
        ("/blobs/uploads/", "POST") if last.is_empty() => uploads::begin(shared, name, head, body),
        ("/blobs/uploads/", "GET") => uploads::status(shared, name, last, head),
        ("/blobs/uploads/", "PATCH") => uploads::part(shared, name, last, head, body),
        ("/blobs/uploads/", "PUT") => uploads::complete(shared, name, last, head, body),
        ("/blobs/uploads/", "DELETE") => uploads::cancel(shared, name, last),
        ("/blobs/", "GET" | "HEAD") => blobs::give(shared, name, last, head),
        ("/blobs/", "DELETE") => blobs::remove(shared, name, last),
        ("/manifests/", "GET" | "HEAD") => manifests::give(shared, name, last, head),
        ("/manifests/", "PUT") => manifests::put(shared, name, last, head, body),
        ("/manifests/", "DELETE") => manifests::remove(shared, name, last),
        ("/tags/", "GET") if last == "list" => manifests::tags(shared, name, head),
        ("/referrers/", "GET") => manifests::referrers(shared, name, last, head),
        _ => Err(Problem::unsupported()),
    }
}

/// Whether it is a repository's name (specification, section "Pulling manifests").
fn is_name(text: &str) -> bool {
    let word = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*";
    let name = Regex::new(&format!("^{word}(/{word})*$")).expect("a pattern that compiles");
    name.is_match(text)
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", store::hex(bytes))
}
