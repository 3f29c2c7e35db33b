//! Who is at the other end of the connection: the control socket, a believed proxy, or a client; and whether the way is secured.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{HttpRequest, dev::Extensions, http::header::HeaderName};

use super::wire::{Cutter, Medium, Wire};
use crate::config::ServerConfig;

/// Marks a connection that came in through the control socket.
#[derive(Clone, Copy, Debug)]
pub struct ControlPeer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Marks a connection that we encrypt ourselves.
#[derive(Clone, Copy, Debug)]
struct EncryptedPeer;

/// Called for each connection: notes what its requests will want to know.
pub(super) fn mark<IO: Medium>(wire: &Wire<IO>, extensions: &mut Extensions) {
    extensions.insert(wire.cutter());
    if wire.is_control() {
        extensions.insert(ControlPeer);
    }
    if IO::ENCRYPTED {
        extensions.insert(EncryptedPeer);
    }
}

/// What ends the connection that the request came over; one that ends nothing outside a served application.
pub fn cutter(request: &HttpRequest) -> Cutter {
    request.conn_data::<Cutter>().cloned().unwrap_or_default()
}

/// Whether the request came in through the control socket, which only the owner of the data directory can open.
pub fn is_control(request: &HttpRequest) -> bool {
    request.conn_data::<ControlPeer>().is_some()
}

/// The client's address. Behind a believed proxy it is the last entry of `X-Forwarded-For` that is not a believed proxy itself:
/// everything left of it was written by the client.
pub fn client_address(request: &HttpRequest, config: &ServerConfig) -> IpAddr {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip().to_canonical());
    if !config.behind_proxy.contains(&peer) {
        return peer;
    }
    let headers = request.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let entries = headers.iter().rev().flat_map(|value| value.rsplit(','));
    for entry in entries {
        match entry.trim().parse::<IpAddr>() {
            Ok(address) if config.behind_proxy.contains(&address.to_canonical()) => {}
            Ok(address) => return address.to_canonical(),
            Err(_) => break,
        }
    }
    peer
}

/// Whether the client's way to us is encrypted: our own TLS, or a believed proxy's word.
pub fn is_secure(request: &HttpRequest, config: &ServerConfig) -> bool {
    if request.conn_data::<EncryptedPeer>().is_some() {
        return true;
    }
    let believed = request.peer_addr().is_some_and(|address| config.behind_proxy.contains(&address.ip().to_canonical()));
    believed && request.headers().get(FORWARDED_PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
pub(crate) mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::web::testing::server_config;

    fn request(peer: &str, forwarded: &str) -> HttpRequest {
        TestRequest::default()
            .peer_addr(format!("{peer}:1").parse().expect("an address"))
            .insert_header((FORWARDED_FOR, forwarded))
            .insert_header((FORWARDED_PROTO, "https"))
            .to_http_request()
    }

    #[test]
    fn forwarded_headers_are_believed_only_from_the_proxies() {
        let mut config = server_config();
        config.behind_proxy = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let address = |peer, forwarded| client_address(&request(peer, forwarded), &config).to_string();
        assert_eq!(address("10.0.0.1", "6.6.6.6, 203.0.113.9"), "203.0.113.9");
        assert_eq!(address("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(address("10.0.0.1", "203.0.113.9, nonsense"), "10.0.0.1");
        assert_eq!(address("192.0.2.7", "203.0.113.9"), "192.0.2.7");
        assert!(is_secure(&request("10.0.0.1", ""), &config));
        assert!(!is_secure(&request("192.0.2.7", ""), &config));
    }
}
