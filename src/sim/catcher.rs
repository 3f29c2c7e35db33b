//! The demo's receiver of webhooks.
