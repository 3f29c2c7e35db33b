//! The listeners: TCP, with TLS where it is configured, and the control socket; both serve the same application.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
    middleware::from_fn,
    web::Data,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{gate::gate, peer, state::WebState};
use crate::config::ServerConfig;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why the surface could not be opened.
#[derive(Debug)]
pub enum ServeError {
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The control socket cannot be made.
    ControlSocket(std::path::PathBuf, io::Error),
    /// Certificate or key cannot be used.
    Tls(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use: stop what listens there, or set server.listen to another port (0 takes a free one)")
            }
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::ControlSocket(path, error) => write!(f, "cannot make the control socket {}: {error}", path.display()),
            Self::Tls(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ServeError {}

/// A surface that is open.
pub struct Running {
    /// Resolves when the surface has stopped; must be polled (spawned) for it to work.
    pub server: Server,
    /// Stops it: `handle.stop(true).await` lets requests in flight end.
    pub handle: ServerHandle,
    /// Where it listens, with the port that was taken for 0.
    pub address: SocketAddr,
    /// `http://ADDRESS` or `https://ADDRESS`.
    pub url: String,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Opens the listeners and starts the workers. Must be called within an actix system.
///
/// # Errors
/// [`ServeError`]; nothing is left listening then.
pub fn serve(state: WebState) -> Result<Running, ServeError> {
    let config = state.config.load_full();
    let settings = &config.server;
    let control_socket = state.control_socket.clone();
    let state = Data::new(state);
    let workers = settings.workers.max(1);
    let server =
        HttpServer::new(move || App::new().app_data(state.clone()).wrap(from_fn(gate)).configure(super::routes::configure))
            .workers(workers)
            .max_connections(settings.max_connections.div_ceil(workers))
            .backlog(BACKLOG)
            .client_request_timeout(settings.client_timeout)
            .client_disconnect_timeout(settings.client_timeout)
            .tls_handshake_timeout(settings.client_timeout)
            .keep_alive(std::time::Duration::from_secs(75))
            .worker_max_blocking_threads(4)
            // A client that has gone gives its room back at once, not at the end of its time-out.
            .h1_allow_half_closed(false)
            .on_connect(peer::mark)
            .shutdown_timeout(settings.stop_timeout.as_secs().max(1))
            .disable_signals();
    let (server, scheme) = match tls(settings)? {
        Some(tls) => (server.bind_rustls_0_23(settings.listen, tls), "https"),
        None => (server.bind(settings.listen), "http"),
    };
    let mut server = server.map_err(|error| ServeError::Listen(settings.listen, error))?;
    let address = server.addrs().first().copied().unwrap_or(settings.listen);
    if let Some(path) = control_socket {
        let listener = control_listener(&path).map_err(|error| ServeError::ControlSocket(path.clone(), error))?;
        server = server.listen_uds(listener).map_err(|error| ServeError::ControlSocket(path, error))?;
    }
    let server = server.run();
    Ok(Running { handle: server.handle(), server, address, url: format!("{scheme}://{address}") })
}

/// A socket that only its owner can open. The data directory is 0700, so there is no moment in which others could.
fn control_listener(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn tls(settings: &ServerConfig) -> Result<Option<rustls::ServerConfig>, ServeError> {
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else { return Ok(None) };
    let fault = |path: &Path, what: &dyn fmt::Display| ServeError::Tls(format!("{}: {what}", path.display()));
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(cert, &error))?;
    if chain.is_empty() {
        return Err(fault(cert, &"there is no certificate in this file"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map(Some)
        .map_err(|error| fault(key, &error))
}
