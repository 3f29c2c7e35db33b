//! The listeners: TCP, with TLS where it is configured, and the control socket; both serve the same application.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    time::Duration,
};

use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{
    App,
    dev::{AppConfig, Server, ServerHandle},
    middleware::from_fn,
    rt::net::{TcpStream, UnixStream},
    web::Data,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use tokio::net::TcpSocket;

use super::{
    gate::gate,
    peer,
    state::WebState,
    wire::{Medium, Wire},
};
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
    let patience = settings.client_timeout;
    let builder = actix_server::Server::build()
        .workers(workers)
        .max_concurrent_connections(settings.max_connections.div_ceil(workers))
        .backlog(BACKLOG)
        .worker_max_blocking_threads(4)
        .shutdown_timeout(settings.stop_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let serving = Serving { state, patience, stopping };
    let cannot_listen = |error| ServeError::Listen(settings.listen, error);
    let listener = tcp_listener(settings.listen).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let (builder, scheme) = match tls(settings)? {
        Some(tls) => {
            let serving = serving.clone();
            let secured = move || {
                let mut acceptor = Acceptor::new(tls.clone());
                acceptor.set_handshake_timeout(patience);
                let accepted = acceptor.map_init_err(|_| ()).map_err(TlsError::into_service_error);
                accepted.and_then(serving.http(protocol).map_err(TlsError::Service))
            };
            (builder.listen("https", listener, secured), "https")
        }
        None => {
            let serving = serving.clone();
            (builder.listen("http", listener, move || serving.http::<TcpStream>(|_| Protocol::Http1)), "http")
        }
    };
    let mut builder = builder.map_err(cannot_listen)?;
    if let Some(path) = control_socket {
        let listener = control_listener(&path).map_err(|error| ServeError::ControlSocket(path.clone(), error))?;
        builder = builder
            .listen_uds("control", listener, move || serving.http::<UnixStream>(|_| Protocol::Http1))
            .map_err(|error| ServeError::ControlSocket(path, error))?;
    }
    let server = builder.run();
    Ok(Running { handle: server.handle(), server, address, url: format!("{scheme}://{address}") })
}

/// What each worker makes its services of.
#[derive(Clone)]
struct Serving {
    state: Data<WebState>,
    patience: Duration,
    stopping: actix_server::GracefulShutdownSignal,
}

impl Serving {
    /// The service of one kind of connection: the connection becomes a [`Wire`], and the application serves what comes over it. This is
    /// what `actix_web::HttpServer` does, but for the wire, which it has no place for.
    fn http<IO: Medium>(
        &self,
        protocol: fn(&IO) -> Protocol,
    ) -> impl ServiceFactory<IO, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<IO> {
        let (state, patience, stopping) = (self.state.clone(), self.patience, self.stopping.clone());
        let app = App::new().app_data(state).wrap(from_fn(gate)).configure(super::routes::configure);
        let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
        let service = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(Duration::from_secs(75))
            .client_request_timeout(patience)
            .client_disconnect_timeout(patience)
            // A client that has gone gives its room back at once, not at the end of its time-out.
            .h1_allow_half_closed(false)
            .on_connect_ext(peer::mark::<IO>)
            .finish(map_config(app, |()| AppConfig::default()));
        fn_service(move |io: IO| async move {
            let protocol = protocol(&io);
            let wire = Wire::new(io, patience);
            let peer = wire.peer();
            Ok((wire, protocol, peer))
        })
        .and_then(service)
    }
}

/// What was agreed on in the handshake.
fn protocol(tls: &TlsStream<TcpStream>) -> Protocol {
    match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
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
        .map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Some(config)
        })
        .map_err(|error| fault(key, &error))
}
