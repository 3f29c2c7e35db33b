//! web

pub mod ui;
