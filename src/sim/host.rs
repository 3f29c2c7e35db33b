//! A small HTTP server on a thread of its own: the source to poll and the demo's catcher run in one.
//!
//! It lives apart from the daemon's arbiters and workers, so that what it serves cannot disturb what is shown.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use actix_web::{App, HttpServer, dev::ServerHandle, web::ServiceConfig};

/// Connections at once; pollers and webhooks need a handful.
const CONNECTIONS_MAX: usize = 64;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Host {
    addr: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Binds `listen` (port 0 takes a free one) and serves what `configure` registers.
    ///
    /// # Errors
    /// Where the address cannot be bound or no thread can be started.
    pub fn start<F>(name: &str, listen: SocketAddr, configure: F) -> io::Result<Self>
    where
        F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
    {
        let listener = TcpListener::bind(listen)?;
        let addr = listener.local_addr()?;
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || App::new().configure(configure.clone()))
                    .workers(1)
                    .max_connections(CONNECTIONS_MAX)
                    .client_request_timeout(CLIENT_TIMEOUT)
                    .shutdown_timeout(1)
                    .disable_signals()
                    .listen(listener)
                    .map(HttpServer::run);
                let told_all = match &server {
                    Ok(server) => tell.send(Ok(server.handle())),
                    Err(error) => tell.send(Err(io::Error::new(error.kind(), error.to_string()))),
                };
                if let (Ok(server), Ok(())) = (server, told_all)
                    && let Err(error) = server.await
                {
                    log::error!(target: "belayd::sim", error:% = error; "the simulator's server ended");
                }
            });
        })?;
        let handle = told.recv().map_err(|_| io::Error::other("the server's thread ended before it served"))??;
        Ok(Self { addr, handle, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops at once and waits for the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The order is queued when the future is made; nobody needs to poll it.
            drop(self.handle.stop(false));
            if thread.join().is_err() {
                log::error!(target: "belayd::sim", addr:% = self.addr; "the simulator's server panicked");
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}
