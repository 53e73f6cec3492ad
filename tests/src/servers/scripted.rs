//! A registry that does what a test says, to see what the program makes of it.

use std::sync::{Arc, Mutex};

use crate::http::{self, Answer, Request};

/// A made-up registry that runs, and remembers what it was asked.
#[derive(Debug)]
pub struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Starts one. `answer` decides; `GET /v2/` it need not mind.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&asked);
        let port = http::serve(move |request| {
            memory.lock().expect("memory").push(request.clone());
            match (&*request.method, &*request.path) {
                ("GET" | "HEAD", "/v2/") => Answer::of(200, "{}"),
                _ => answer(request),
            }
        });
        Self { port, asked }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("memory").clone()
    }
}
