//! Permissions as types: a handler that takes `Operator` runs for operators only.

use std::{
    future::{Ready, ready},
    sync::atomic::Ordering,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::Method};

use super::{Caller, authenticate};
use crate::{
    domain::role::Role,
    web::{
        audit::audit,
        error::{ApiError, ErrorCode},
        push,
        state::WebState,
    },
};

/// How often a refused push is written to the audit at most: once a minute.
const REFUSED_PUSH_EVERY_US: i64 = 60_000_000;

macro_rules! permission {
    ($($(#[$doc:meta])* $name:ident: $($role:ident)|+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub Caller);

        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Ready<Result<Self, ApiError>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                ready(permit(request, &[$(Role::$role),+]).map(Self))
            }
        }
    )*};
}

permission! {
    /// May look.
    Viewer: Viewer;
    /// May look, acknowledge and decide about failures.
    Operator: Operator;
    /// May do everything.
    Admin: Admin;
    /// May push readings.
    Pusher: Ingest;
    /// May ask what became of a reading.
    Asker: Ingest | Viewer;
}

/// Whatever a person may not do is written down each time. A sender with the wrong token may push many times a second: of those one row a
/// minute tells.
fn may_write_down(path: &str, state: &WebState) -> bool {
    if path != push::PATH {
        return true;
    }
    let now_us = state.clock.now_us();
    let least_us = |last: i64| (last.saturating_add(REFUSED_PUSH_EVERY_US) <= now_us).then_some(now_us);
    state.refused_push_at_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, least_us).is_ok()
}

fn permit(request: &HttpRequest, roles: &[Role]) -> Result<Caller, ApiError> {
    let state = WebState::of(request)?;
    let caller = authenticate(request, state)?;
    if roles.iter().any(|role| caller.role().meets(*role)) {
        return Ok(caller);
    }
    let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let (role, name) = (caller.role(), caller.name());
    log::warn!(target: "belayd::web", token = name, role = role.as_str(), path = request.path(); "refused: the role does not reach that far");
    if !matches!(*request.method(), Method::GET | Method::HEAD) && may_write_down(request.path(), state) {
        let subject = format!("{} {}", request.method(), request.path().chars().take(200).collect::<String>());
        let refused = audit(state, &caller, "admin.refused", &subject, None, ErrorCode::Forbidden.as_str());
        actix_web::rt::spawn(async move {
            if let Err(error) = refused.await {
                log::error!(target: "belayd::web", error:% = error; "a refused action could not be written to the audit");
            }
        });
    }
    Err(ApiError::new(ErrorCode::Forbidden, format!("the token has the role {role}; this takes {}", needed.join(" or "))))
}
