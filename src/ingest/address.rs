//! Duty: which addresses belayd asks at all. Loopback and private networks are where sources live; link-local and metadata
//! addresses hand out a cloud machine's credentials, and whoever may configure a source must not get at those unless a person
//! allowed it by name.
//!
//! Comes in: the host of a URL, and what names resolve to (looked at on every connection, so a name that changes its address is
//! no way around). Goes out: addresses, or [`AddressRefused`]. A crash loses nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Host;

/// An address that policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRefused {
    address: IpAddr,
    why: &'static str,
}

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address {} is refused: it is {}", self.address, self.why)
    }
}

impl std::error::Error for AddressRefused {}

/// Cloud metadata and host services beside 169.254/16: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// Cloud metadata over IPv6: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Judges one address. `allow_link_local` lifts the ban on link-local and metadata addresses, never that on those that name no
/// single host.
///
/// # Errors
/// [`AddressRefused`] with the reason.
pub fn refuse_address(address: IpAddr, allow_link_local: bool) -> Result<(), AddressRefused> {
    let refuse = |why| Err(AddressRefused { address, why });
    let plain = match address {
        IpAddr::V6(v6) => embedded_v4(v6).map_or(address, IpAddr::V4),
        v4 => v4,
    };
    let (nobody, link_local, metadata) = match plain {
        IpAddr::V4(v4) => (v4.octets()[0] == 0 || v4.is_broadcast(), v4.is_link_local(), METADATA_V4.contains(&v4)),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.is_unicast_link_local(), METADATA_V6.contains(&v6)),
    };
    if nobody || plain.is_multicast() {
        return refuse("no single host (unspecified, broadcast or multicast)");
    }
    if link_local && !allow_link_local {
        return refuse("link-local, where clouds keep credentials (allow_link_local permits it)");
    }
    if metadata && !allow_link_local {
        return refuse("a cloud's metadata service (allow_link_local permits it)");
    }
    Ok(())
}

/// Judges the host of `url` where it is an address; names are judged when they are resolved.
///
/// # Errors
/// [`AddressRefused`] with the reason.
pub fn refuse_host(url: &Url, allow_link_local: bool) -> Result<(), AddressRefused> {
    match url.host() {
        Some(Host::Ipv4(v4)) => refuse_address(v4.into(), allow_link_local),
        Some(Host::Ipv6(v6)) => refuse_address(v6.into(), allow_link_local),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

/// The IPv4 address that is reached through an IPv6 one: mapped, compatible, NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

/// Resolves names by the system and keeps the addresses that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardedResolver {
    pub(super) allow_link_local: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_link_local = self.allow_link_local;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(permitted(found, allow_link_local)?.into_iter()) as Addrs)
        })
    }
}

/// The addresses that may be asked; where that is none of them, why the first may not.
fn permitted(found: Vec<SocketAddr>, allow_link_local: bool) -> Result<Vec<SocketAddr>, AddressRefused> {
    let mut refused = None;
    let mut permitted = found;
    permitted.retain(|address| match refuse_address(address.ip(), allow_link_local) {
        Ok(()) => true,
        Err(error) => {
            refused.get_or_insert(error);
            false
        }
    });
    match refused {
        Some(error) if permitted.is_empty() => Err(error),
        _ => Ok(permitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(address: &str, allow: bool) -> bool {
        refuse_address(address.parse().expect("an address"), allow).is_ok()
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_spelling_unless_allowed() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!judged(address, false), "{address}");
            assert!(judged(address, true), "{address}");
        }
    }

    #[test]
    fn addresses_of_no_single_host_are_refused_always() {
        for address in ["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:0.0.0.0"] {
            assert!(!judged(address, true), "{address}");
        }
    }

    #[test]
    fn loopback_private_and_public_addresses_are_asked() {
        for address in
            ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "fd12::1", "100.64.0.1", "93.184.215.14", "2606:2800::1"]
        {
            assert!(judged(address, false), "{address}");
        }
    }

    #[test]
    fn a_url_cannot_hide_an_address_behind_its_spelling() {
        for url in [
            "http://2852039166/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://[::ffff:a9fe:a9fe]/",
        ] {
            let url = Url::parse(url).expect("a URL");
            assert!(refuse_host(&url, false).is_err(), "{url}");
        }
    }

    #[test]
    fn a_name_with_a_forbidden_and_a_permitted_address_uses_the_permitted() {
        let [bad, good]: [SocketAddr; 2] =
            ["169.254.169.254:80", "10.0.0.1:80"].map(|address| address.parse().expect("an address"));
        assert_eq!(permitted(vec![bad, good], false), Ok(vec![good]));
        assert!(permitted(vec![bad], false).is_err());
        assert_eq!(permitted(vec![bad], true), Ok(vec![bad]));
    }
}
