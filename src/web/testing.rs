//! What tests of this folder share.

use std::time::Duration;

use crate::config::ServerConfig;

/// A server section as the defaults have it.
pub(crate) fn server_config() -> ServerConfig {
    ServerConfig {
        listen: ([127, 0, 0, 1], 7070).into(),
        data_dir: "belayd-data".into(),
        hosts: vec!["localhost".into(), "127.0.0.1".into()],
        tls_cert: None,
        tls_key: None,
        behind_proxy: Vec::new(),
        metrics_open: true,
        workers: 2,
        max_connections: 1024,
        client_timeout: Duration::from_secs(10),
        session_lifetime: Duration::from_secs(3600),
        max_streams: 4,
        stop_timeout: Duration::from_secs(10),
    }
}
