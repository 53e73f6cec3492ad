//! One JSON object a line on stdout, for the log driver of the container.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Writes a line for something that happened to the server.
pub(crate) fn event(event: &str, detail: &str) {
    write(&json!({ "timestamp": now(), "event": event, "detail": detail }));
}

/// Answers a request and writes a line for it. Query and headers stay out: they may be private.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    write(&json!({
        "timestamp": now(),
        "method": method,
        "path": path,
        "status": response.status().as_u16(),
        "microseconds": u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
    }));
    response
}

/// Milliseconds since 1970, as the log service counts.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes one line. A log that nobody reads any more is no reason to stop selling.
fn write(line: &Value) {
    let _gone = writeln!(std::io::stdout().lock(), "{line}");
}
