//! What systemd is told, and what it hands in.
//!
//! In: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `CREDENTIALS_DIRECTORY`. Out: datagrams `READY=1`, `STATUS=…`, `WATCHDOG=1`, … Without
//! systemd every call does nothing. A crash loses nothing: systemd notices the end of the process by itself.
//!
//! Own sending because the crate's knows no abstract sockets (`@…`, usual in containers), and reads the environment at each call.

use std::{
    ffi::{OsStr, OsString},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use sd_notify::NotifyState;

/// Tells systemd how the daemon is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<Arc<OsStr>>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says. The environment is left as it is: changing it is unsafe once threads run.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        Self::new(socket, sd_notify::watchdog_enabled())
    }

    /// To this socket (`None`: to nobody), with this watchdog limit.
    pub fn new(socket: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let socket = socket.filter(|path| !path.is_empty()).map(Arc::from);
        let watchdog = watchdog.filter(|limit| socket.is_some() && !limit.is_zero());
        Self { socket, watchdog }
    }

    /// Whether anybody listens.
    pub fn is_active(&self) -> bool {
        self.socket.is_some()
    }

    /// The limit of silence after which systemd ends the process; `None` where it does not watch.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The listener and the buffer are open; `status` is shown by `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; it ends with [`ready`](Self::ready).
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!(target: "belayd::systemd", error:% = error; "no monotonic time for the reload"),
        }
    }

    /// The ordered stop begins.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&one_line(status))]);
    }

    /// A sign of life. Only the overseer gives it.
    pub fn watchdog_ping(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send_to(socket, text.as_bytes()) {
            log::warn!(target: "belayd::systemd", error:% = error; "systemd could not be told; check NOTIFY_SOCKET and NotifyAccess=");
        }
    }
}

/// Never blocks: a full socket is an error, because the overseer must go on looking.
fn send_to(socket: &OsStr, text: &[u8]) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text, &address).map(|_| ())
}

/// A newline would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// A secret that systemd hands in (`LoadCredential=name:…`), without its trailing line break; `None` where there is none. The
/// value is a secret: never log it.
pub fn credential(name: &str) -> Option<String> {
    read_credential(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?), name)
}

fn read_credential(directory: PathBuf, name: &str) -> Option<String> {
    // A credential's name is a file name; anything else could leave the directory.
    if name.is_empty() || name.contains('/') || name == ".." {
        return None;
    }
    let text = std::fs::read_to_string(directory.join(name)).ok()?;
    Some(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn every_notice_arrives_on_a_real_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.into()), Some(Duration::from_secs(30)));
        notifier.ready("buffering\nREADY=0");
        assert_eq!(received(&socket), "READY=1\nSTATUS=buffering READY=0\n");
        notifier.reloading();
        let text = received(&socket);
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.trim_end().parse::<u64>().ok());
        assert!(usec.is_some_and(|usec| usec > 0), "{text}");
        notifier.status("ready: 12 readings/s");
        assert_eq!(received(&socket), "STATUS=ready: 12 readings/s\n");
        notifier.watchdog_ping();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        notifier.stopping("draining");
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=draining\n");
        assert_eq!(notifier.watchdog(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("belayd-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(Some(format!("@{name}").into()), None).ready("");
        assert_eq!(received(&socket), "READY=1\nSTATUS=\n");
    }

    #[test]
    fn without_systemd_nothing_happens_and_nobody_watches() {
        for socket in [None, Some(OsString::new())] {
            let notifier = Notifier::new(socket, Some(Duration::from_secs(1)));
            assert!(!notifier.is_active() && notifier.watchdog().is_none());
            notifier.ready("ready");
        }
        // A socket that is gone is a line in the log, no failure.
        Notifier::new(Some("/nonexistent/notify".into()), None).ready("ready");
    }

    #[test]
    fn a_credential_is_a_file_of_its_directory_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("credentials")).unwrap();
        std::fs::write(dir.path().join("outside"), "no").unwrap();
        std::fs::write(dir.path().join("credentials/store-url"), "postgres://u:p@h/db\n").unwrap();
        let read = |name: &str| read_credential(dir.path().join("credentials"), name);
        assert_eq!(read("store-url").as_deref(), Some("postgres://u:p@h/db"));
        for name in ["missing", "../outside", "", ".."] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
