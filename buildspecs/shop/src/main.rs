//! A small shop: a catalogue, product pages, and a cart, as HTML and as JSON.
//!
//! Read in this order: [`catalogue`] and [`cart`] (values and rules), [`pages`] (values to HTML),
//! [`routes`] (requests to answers), [`log`] (one line a request), [`health`] (the self-check).

mod cart;
mod catalogue;
mod health;
mod log;
mod pages;
mod routes;

use catalogue::Catalogue;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
usage: shop             serve on 0.0.0.0:$PORT (8080 if unset)
       shop --health    ask the server on this machine whether it is well
       shop --version   print the version

environment: PORT, SHOP_CATALOGUE (a JSON file; the built-in catalogue if unset)";

/// How long requests under way may take once we were told to stop; ECS kills after 30 seconds.
const GRACE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => serve(),
        ["--health"] => port().and_then(health::check),
        ["--version"] => {
            println!("shop {} ({})", routes::VERSION, routes::commit());
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    let Err(problem) = result else { return ExitCode::SUCCESS };
    eprintln!("{problem}");
    ExitCode::FAILURE
}

fn port() -> Result<u16, String> {
    let Ok(text) = env::var("PORT") else { return Ok(8080) };
    text.parse().map_err(|_| format!("PORT must be a number from 0 to 65535, not `{text}`"))
}

fn catalogue() -> Result<Catalogue, String> {
    let Ok(path) = env::var("SHOP_CATALOGUE") else { return Ok(Catalogue::built_in()) };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Catalogue::parse(&text).map_err(|error| format!("{path}: {error}"))
}

fn serve() -> Result<(), String> {
    let (port, catalogue) = (port()?, catalogue()?);
    // One thread: a request takes microseconds, and a small task has a quarter of a CPU.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(listen(port, catalogue)).map_err(|error| format!("port {port}: {error}"))
}

/// Serves until SIGTERM (from ECS) or SIGINT (from a terminal), then lets requests finish.
async fn listen(port: u16, catalogue: Catalogue) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    log::event("listening", &listener.local_addr()?.to_string());

    let (told, stop) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, routes::router(catalogue)).with_graceful_shutdown(async {
        // A sender that is gone means the same: stop.
        stop.await.unwrap_or(());
    });
    let patience = async {
        tokio::select! {
            _ = terminated.recv() => log::event("stopping", "SIGTERM"),
            _ = interrupted.recv() => log::event("stopping", "SIGINT"),
        }
        drop(told);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served?,
        () = patience => log::event("cut off", "requests were still under way"),
    }
    log::event("stopped", "");
    Ok(())
}
