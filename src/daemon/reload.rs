//! SIGHUP: the configuration is read again and taken over whole, or not at all.

use std::sync::Arc;

use super::Daemon;
use crate::{config, protocol::Reconfigure, sinks::templates::Templates};

/// How often a full mailbox is tried before a reload is given up for that actor.
const TRIES: u32 = 50;

impl Daemon {
    /// Reads the configuration again. Where it has faults, or changes what cannot change while running, the old one stays and the
    /// log says why.
    pub(super) async fn reload(&self) {
        let Some(options) = self.reload.clone() else {
            log::warn!(target: "belayd::config", "there is no configuration file to read again");
            return;
        };
        self.notifier.reloading();
        let started = std::time::Instant::now();
        match self.take_over(&options).await {
            Ok(true) => {
                log::info!(target: "belayd::config", durationMs = started.elapsed().as_millis() as u64; "configuration reloaded")
            }
            Ok(false) => log::info!(target: "belayd::config", "configuration read again: nothing has changed"),
            Err(faults) => {
                for fault in faults {
                    log::error!(target: "belayd::config", fault = fault.as_str(); "configuration refused; the old one stays in force");
                }
            }
        }
        self.notifier.ready("running");
    }

    async fn take_over(&self, options: &config::LoadOptions) -> Result<bool, Vec<String>> {
        let loaded = {
            let options = options.clone();
            tokio::task::spawn_blocking(move || config::load(&options)).await
        };
        let loaded = loaded.map_err(|error| vec![error.to_string()])?;
        let new = loaded.map_err(|faults| faults.0.iter().map(ToString::to_string).collect::<Vec<_>>())?.config;
        Templates::load(&new.templates).map_err(|faults| faults.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let old = self.config.load_full();
        config::diff(&old, &new).map_err(|refused| refused.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        if *old == new {
            return Ok(false);
        }
        self.logging.control.set_filter(&new.log.level).map_err(|error| vec![error.to_string()])?;
        let new = Arc::new(new);
        self.config.store(new.clone());
        let order = Reconfigure(new);
        for _ in 0..TRIES {
            // An actor that gets it twice takes it over twice, which changes nothing.
            if self.supervisor.registry().reconfigure(&order).is_empty() {
                return Ok(true);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        log::warn!(target: "belayd::config", "the new configuration is in force, but an actor's mailbox stayed full; send SIGHUP again");
        Ok(true)
    }
}
