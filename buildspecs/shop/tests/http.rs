//! The program as a client sees it: started on a port of its own, asked over HTTP, told to stop.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

struct Shop {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Shop {
    fn start() -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_shop")).env_remove("SHOP_CATALOGUE"))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let listening = read_log(&mut stdout);
        assert_eq!(listening["event"], "listening");
        let address = listening["detail"].as_str().unwrap();
        let port = address.strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
        Self { child, stdout, port }
    }

    fn log(&mut self) -> Value {
        read_log(&mut self.stdout)
    }

    fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\n{headers}"), "")
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\n{form}Content-Length: {length}\r\n{headers}");
        self.send(&head, body)
    }

    fn send(&self, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{head}Host: shop\r\nConnection: close\r\n\r\n{body}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // A test that stopped it itself has nothing left to end.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn read_log(stdout: &mut impl BufRead) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert!(self.head.starts_with(&format!("HTTP/1.1 {status} ")), "{}", self.head);
        self
    }

    fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    fn contains(&self, text: &str) {
        assert!(self.body.contains(text), "no `{text}` in {}", self.body);
    }

    /// Returns the `Cookie` header that a browser would send next.
    fn cookie(&self) -> String {
        let set = self.header("set-cookie").unwrap();
        format!("Cookie: {}\r\n", set.split(';').next().unwrap())
    }
}

#[test]
fn health_and_version_are_json() {
    let shop = Shop::start();
    assert_eq!(shop.get("/health").expect(200).json(), json!({ "status": "ok" }));
    let version = shop.get("/version").expect(200).json();
    assert_eq!(version["name"], "shop");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{version}");
}

#[test]
fn the_catalogue_is_a_page_and_json() {
    let shop = Shop::start();
    let page = shop.get("/").expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    page.contains("<h2>Stoneware mug</h2>");
    page.contains("href=\"/products/oak-tray\"");
    page.contains("€89.00");
    page.contains("Cart (0)");

    let list = shop.get("/api/products").expect(200).json();
    assert_eq!(list["products"].as_array().unwrap().len(), 8);
    assert_eq!(list["products"][0]["id"], "stoneware-mug");
    let one = shop.get("/api/products/oak-tray").expect(200).json();
    assert_eq!((&one["name"], &one["price_cents"]), (&json!("Oak tray"), &json!(4200)));
}

#[test]
fn another_catalogue_can_be_put_beside_the_program() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/catalogue.json");
    let product = json!({
        "id": "spoon", "name": "Spoon", "summary": "s", "description": "d",
        "price_cents": 300, "hue": 0, "art": "M0 0h9",
    });
    std::fs::write(path, json!([product]).to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let shop = Shop::spawn(command.env("SHOP_CATALOGUE", path));
    let list = shop.get("/api/products").expect(200).json();
    assert_eq!(list["products"].as_array().unwrap().len(), 1);
    shop.get("/").expect(200).contains("<h2>Spoon</h2>");
}

#[test]
fn what_is_not_there_is_404_in_the_form_that_was_asked_for() {
    let shop = Shop::start();
    for path in ["/products/no-such", "/no/such/page"] {
        shop.get(path).expect(404).contains("<h1>Not on our shelves</h1>");
    }
    for path in ["/api/products/no-such", "/api/no-such"] {
        assert_eq!(shop.get(path).expect(404).json(), json!({ "error": "not found" }));
    }
    shop.post("/", "", "").expect(405);
}

#[test]
fn a_cart_is_filled_shown_and_emptied() {
    let shop = Shop::start();
    let answer = shop.post("/cart/add", "", "id=stoneware-mug&quantity=2").expect(303);
    assert_eq!(answer.header("location"), Some("/cart"));
    let cookie = answer.cookie();
    let cookie = shop.post("/cart/add", &cookie, "id=oak-tray&quantity=1").expect(303).cookie();

    let page = shop.get_with("/cart", &cookie).expect(200);
    page.contains("Cart (3)");
    page.contains("<strong>€78.00</strong>");
    let cart = shop.get_with("/api/cart", &cookie).expect(200).json();
    assert_eq!((&cart["count"], &cart["total_cents"]), (&json!(3), &json!(7800)));
    assert_eq!(cart["lines"][1]["id"], "oak-tray");

    let cookie = shop.post("/cart/remove", &cookie, "id=stoneware-mug").expect(303).cookie();
    let cart = shop.get_with("/api/cart", &cookie).expect(200).json();
    assert_eq!(cart["total_cents"], 4200);
    let cookie = shop.post("/cart/remove", &cookie, "id=oak-tray").expect(303).cookie();
    shop.get_with("/cart", &cookie).expect(200).contains("nothing in it yet");
}

#[test]
fn forms_that_are_not_ours_are_refused() {
    let shop = Shop::start();
    shop.post("/cart/add", "Sec-Fetch-Site: cross-site\r\n", "id=oak-tray&quantity=1").expect(403);
    shop.post("/cart/add", "", "id=no-such&quantity=1").expect(404);
    for body in ["", "id=oak-tray", "id=oak-tray&quantity=256", "id=oak-tray&quantity=-1"] {
        assert!(shop.post("/cart/add", "", body).expect(400).header("set-cookie").is_none());
    }
    let large = format!("id=oak-tray&quantity=1&x={}", "y".repeat(4096));
    shop.post("/cart/add", "", &large).expect(400);
}

#[test]
fn every_answer_says_what_the_pages_never_do() {
    let shop = Shop::start();
    for path in ["/", "/style.css", "/no-such", "/api/cart"] {
        let answer = shop.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn each_request_is_one_line_of_json() {
    let mut shop = Shop::start();
    shop.get("/products/oak-tray?secret=1").expect(200);
    let line = shop.log();
    assert_eq!((&line["method"], &line["status"]), (&json!("GET"), &json!(200)));
    assert_eq!(line["path"], "/products/oak-tray");
    assert!(line["timestamp"].is_u64() && line["microseconds"].is_u64(), "{line}");
    shop.get("/no-such%22%0a").expect(404);
    assert_eq!(shop.log()["path"], "/no-such%22%0a");
}

#[test]
fn a_signal_stops_it_after_the_requests_under_way() {
    for (name, expected) in [("TERM", "SIGTERM"), ("INT", "SIGINT")] {
        let mut shop = Shop::start();
        // A connection that is kept open must not keep the program from stopping.
        let mut idle = TcpStream::connect((Ipv4Addr::LOCALHOST, shop.port)).unwrap();
        idle.write_all(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        assert!(idle.read(&mut answer).unwrap() > 0);
        assert_eq!(shop.log()["path"], "/health");

        shop.signal(name);
        assert_eq!(shop.log()["detail"], expected);
        assert_eq!(shop.log()["event"], "stopped");
        assert_eq!(shop.wait().code(), Some(0));
    }
}

#[test]
fn the_self_check_tells_whether_the_server_is_well() {
    let mut shop = Shop::start();
    let check = |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command.arg("--health").env("PORT", port.to_string()).output().unwrap()
    };
    assert_eq!(check(shop.port).status.code(), Some(0));
    shop.signal("TERM");
    shop.wait();
    let output = check(shop.port);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("port "));
}

#[test]
fn a_wrong_start_says_what_is_wrong() {
    let table = [
        (vec!["--no-such"], ("PORT", "0"), "usage: shop"),
        (vec![], ("PORT", "many"), "PORT must be a number from 0 to 65535, not `many`"),
        (vec![], ("SHOP_CATALOGUE", "/no/such.json"), "/no/such.json: No such file"),
    ];
    for (arguments, (name, value), expected) in table {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        let output = command.args(arguments).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(expected), "{stderr}");
    }
}
