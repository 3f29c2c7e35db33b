//! The routes, one line each, in the order of the interface.

use actix_web::web::ServiceConfig;

/// Registers every route.
pub fn configure(_config: &mut ServiceConfig) {}
