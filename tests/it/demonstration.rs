//! The main job, end to end: the shop's own buildspec makes an image that others fetch, unpack and
//! run, and that answers over HTTP.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rbuild_tests::{
    Finished, Run, Sandbox, http, peers,
    process::{Process, mortal},
    servers::{Registry, listens_on},
    store,
};
use serde_json::{Value, json};

use crate::{digest_of, root, sandbox};

#[test]
fn the_shop_is_built_pushed_fetched_run_and_answers() {
    let sandbox = sandbox(&[]);
    let shop = Shop::new();
    let repository = Registry::shared().image("shop");
    run_shop(&sandbox, &shop.dir, &["--env", &format!("REPOSITORY_URI={repository}")]);

    let image = image_of(&sandbox);
    assert!(image.starts_with(&format!("{repository}@sha256:")), "{image}");
    assert_eq!(peers::skopeo_digest(&image), digest_of(&image));
    let (layout, bundle) = (sandbox.path().join("layout"), sandbox.path().join("bundle"));
    peers::skopeo_copy(&image, &layout, "");
    peers::umoci_unpack(&layout, &bundle);
    let container = Container::start(&sandbox, &bundle);

    let health = container.get_json("/health");
    assert_eq!(health["status"], "ok", "{health}");
    let version = container.get_json("/version");
    assert_eq!(version["name"], "shop", "{version}");
    let manifest = fs::read_to_string(shop.dir.join("Cargo.toml")).unwrap();
    let number = version["version"].as_str().unwrap();
    assert!(manifest.contains(&format!("version = \"{number}\"")), "{version}");
}

#[test]
fn with_no_registry_the_shop_stays_in_the_store_and_says_how_to_go_on() {
    let sandbox = sandbox(&[]);
    let shop = Shop::new();
    let log = run_shop(&sandbox, &shop.dir, &[]).stdout;
    let image = image_of(&sandbox);
    assert!(image.starts_with("shop@sha256:"), "{image}");
    for said in ["the push is left out", &image, "target/deploy", "REPOSITORY_URI=ACCOUNT.dkr.ecr"]
    {
        assert!(log.contains(said), "nothing is said of `{said}`:\n{log}");
    }
    store::assert_nothing_is_half_written(&sandbox.store());
    let detail: Value = read_json(&sandbox.path().join("artifacts"), "imageDetail.json");
    assert_eq!(detail["ImageURI"], image.as_str());
    assert_eq!(detail["RegistryId"], Value::Null, "only ECR knows that");
}

/// Runs the shop's buildspec, which must succeed and leave its source as it was.
#[track_caller]
fn run_shop(sandbox: &Sandbox, shop: &Path, args: &[&str]) -> Finished {
    let artifacts = sandbox.path().join("artifacts").display().to_string();
    let args = [&["run", "--log", "codebuild", "-a", &artifacts], args].concat();
    let before = sources(shop);
    let finished = with_cargo(sandbox.rbuild(args)).in_dir(shop).within(MINUTES_TO_BUILD).ok();
    assert_eq!(sources(shop), before, "the source was changed");
    finished
}

const MINUTES_TO_BUILD: Duration = Duration::from_mins(15);

/// The image that the files for the deployment name, all of them the same.
#[track_caller]
fn image_of(sandbox: &Sandbox) -> String {
    let artifacts = sandbox.path().join("artifacts");
    let definitions = read_json(&artifacts, "imagedefinitions.json");
    let image = definitions[0]["imageUri"].as_str().expect("imageUri").to_owned();
    assert_eq!(definitions, json!([{"name": "shop", "imageUri": image}]));
    let definition = read_json(&artifacts, "taskdef.json");
    assert_eq!(definition["containerDefinitions"][0]["image"], image.as_str());
    assert!(artifacts.join("appspec.yaml").exists());
    image
}

#[track_caller]
fn read_json(folder: &Path, name: &str) -> Value {
    let path = folder.join(name);
    let text = fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// A copy of the shop that keeps what cargo made there, so that only the first build of it is slow.
/// One test at a time has it.
struct Shop {
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Shop {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = root().join("target/test-tools/shop");
        fs::create_dir_all(&dir).expect("folder for the shop");
        let script = "find \"$0\" -mindepth 1 -maxdepth 1 ! -name target -exec rm -r {} + && \
                      tar --create --exclude=./target --exclude=./dist . | \
                      tar --extract --directory \"$0\"";
        let mut copy = Command::new("sh");
        copy.args(["-c", script]).arg(&dir).current_dir(root().join("buildspecs/shop"));
        assert!(copy.status().expect("sh").success(), "the shop is not copied");
        Self { dir, _turn: turn }
    }
}

/// `run` with the caller's Rust toolchain, which HOME does not lead to here.
fn with_cargo(run: Run) -> Run {
    let home = PathBuf::from(env::var_os("HOME").expect("HOME"));
    let folder =
        |name, default| env::var_os(name).map_or_else(|| home.join(default), PathBuf::from);
    let path = env::var_os("PATH").expect("PATH");
    let run = run.env("CARGO_HOME", folder("CARGO_HOME", ".cargo")).env("PATH", path);
    run.env("RUSTUP_HOME", folder("RUSTUP_HOME", ".rustup"))
}

/// Paths and contents of what a team has under version control.
fn sources(shop: &Path) -> Vec<(PathBuf, String)> {
    let made = ["target", "dist"].map(|it| shop.join(it));
    let files = fs::read_dir(shop).expect("the shop").map(|it| it.expect("entry").path());
    let files = files.filter(|it| !made.contains(it));
    let files = files.flat_map(|it| if it.is_dir() { store::files(&it) } else { vec![it] });
    let mut files: Vec<_> = files.map(|it| (it.clone(), store::sha256(&it))).collect();
    files.sort();
    files
}

/// A container that `runc` runs, in this machine's network.
struct Container {
    name: String,
    root: String,
    port: u16,
    runc: Process,
}

impl Container {
    fn start(sandbox: &Sandbox, bundle: &Path) -> Self {
        let runc = peers::need("runc", "runc");
        share_network(bundle);
        let name = format!("shop-{}", std::process::id());
        let root = sandbox.path().join("runc").display().to_string();
        let pid = sandbox.path().join("pid");
        let mut command = mortal(&runc.display().to_string());
        command.args(["--root", &root, "run", "--pid-file"]).arg(&pid).arg("--bundle");
        command.arg(bundle).arg(&name);
        let log = File::create(sandbox.path().join("container.log")).expect("log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let mut runc = Process::start(command);
        let port = runc.until(Duration::from_mins(1), |_| {
            let id = fs::read_to_string(&pid).ok()?.parse().ok()?;
            listens_on(id)
        });
        let log = fs::read_to_string(sandbox.path().join("container.log")).unwrap_or_default();
        let port = port.unwrap_or_else(|| panic!("the container does not listen:\n{log}"));
        Self { name, root, port, runc }
    }

    #[track_caller]
    fn get_json(&self, path: &str) -> Value {
        let (status, body) = http::get(self.port, path).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Self { name, root, .. } = self;
        let mut command = Command::new("/usr/sbin/runc");
        drop(command.args(["--root", root, "delete", "--force", name]).status());
        self.runc.ends_within(Duration::from_secs(10));
    }
}

/// Takes the private network out of a bundle's configuration, and has the program choose its port.
fn share_network(bundle: &Path) {
    let path = bundle.join("config.json");
    let mut config = read_json(bundle, "config.json");
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|it| it["type"] != "network");
    config["process"]["terminal"] = json!(false);
    let variables = config["process"]["env"].as_array_mut().expect("env");
    variables.retain(|it| !it.as_str().is_some_and(|it| it.starts_with("PORT=")));
    variables.push(json!("PORT=0"));
    fs::write(path, config.to_string()).expect("config.json");
}
