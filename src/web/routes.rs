//! The routes: one line each. From this table come the registration, `Allow`, and the tests of roles and of the description.

use actix_web::{
    Route,
    http::Method,
    web::{self, ServiceConfig},
};

use super::{
    admin::{actors, duties, failures, logs, look, sinks, tokens},
    alerts,
    error::{ApiError, ErrorCode},
    health, issues, messages, openapi, push, query, session, silences, stream,
};
use crate::domain::role::Role;

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Open,
    /// Whoever has one of these roles or a higher one.
    Roles(&'static [Role]),
}

/// One route.
#[derive(Clone, Copy)]
pub struct RouteSpec {
    /// The method.
    pub method: &'static str,
    /// The path, with `{names}`.
    pub path: &'static str,
    /// Who is let in; the handler's signature enforces it, and a test compares the two.
    pub access: Access,
    make: fn() -> Route,
}

impl std::fmt::Debug for RouteSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({:?})", self.method, self.path, self.access)
    }
}

const OPEN: Access = Access::Open;
const INGEST: Access = Access::Roles(&[Role::Ingest]);
const ASKER: Access = Access::Roles(&[Role::Ingest, Role::Viewer]);
const VIEWER: Access = Access::Roles(&[Role::Viewer]);
const OPERATOR: Access = Access::Roles(&[Role::Operator]);
const ADMIN: Access = Access::Roles(&[Role::Admin]);

macro_rules! routes {
    ($($access:ident $method:ident $path:literal => $handler:path;)*) => {
        &[$(RouteSpec {
            method: stringify!($method),
            path: $path,
            access: $access,
            make: || Route::new().to($handler),
        },)*]
    };
}

/// Every route, the hot one first: resources are tried in this order.
pub const ROUTES: &[RouteSpec] = routes! {
    INGEST   POST   "/api/readings" => push::push;
    VIEWER   GET    "/api/readings" => query::readings;
    VIEWER   GET    "/api/engines" => query::engines;
    ASKER    GET    "/api/receipts/{stream}/{seq}" => query::receipt;
    VIEWER   GET    "/api/alerts" => alerts::list;
    VIEWER   GET    "/api/alerts/{id}" => alerts::show;
    OPERATOR POST   "/api/alerts/{id}/ack" => alerts::acknowledge;
    OPERATOR POST   "/api/messages" => messages::create;
    OPERATOR GET    "/api/messages" => messages::list;
    OPERATOR GET    "/api/messages/{id}" => messages::show;
    OPERATOR POST   "/api/messages/{id}/cancel" => messages::cancel;
    VIEWER   GET    "/api/issues" => issues::list;
    OPERATOR POST   "/api/issues" => issues::open;
    VIEWER   GET    "/api/issues/{id}" => issues::show;
    OPERATOR POST   "/api/issues/{id}/comments" => issues::comment;
    OPERATOR POST   "/api/issues/{id}/start" => issues::start;
    OPERATOR POST   "/api/issues/{id}/resolve" => issues::resolve;
    OPERATOR POST   "/api/issues/{id}/close" => issues::close;
    OPERATOR POST   "/api/issues/{id}/reopen" => issues::reopen;
    VIEWER   GET    "/api/silences" => silences::list;
    OPERATOR POST   "/api/silences" => silences::create;
    OPERATOR POST   "/api/silences/preview" => silences::preview;
    VIEWER   GET    "/api/silences/{id}" => silences::show;
    OPERATOR DELETE "/api/silences/{id}" => silences::expire;
    VIEWER   GET    "/api/state" => stream::snapshot;
    VIEWER   GET    "/api/stream" => stream::state;
    VIEWER   GET    "/api/openapi.json" => openapi::document;
    VIEWER   GET    "/api/docs" => openapi::readable;
    OPERATOR GET    "/admin/actors" => actors::list;
    ADMIN    POST   "/admin/actors/{name}/restart" => actors::restart;
    OPERATOR GET    "/admin/duties" => duties::list;
    ADMIN    POST   "/admin/duties/{name}/run" => duties::run;
    OPERATOR GET    "/admin/buffer" => look::buffer;
    OPERATOR GET    "/admin/outbox" => look::outbox;
    OPERATOR GET    "/admin/instances" => look::instances;
    OPERATOR GET    "/admin/sinks" => sinks::list;
    OPERATOR POST   "/admin/sinks/{name}/test" => sinks::test;
    OPERATOR GET    "/admin/audit" => look::audit_rows;
    OPERATOR GET    "/admin/config" => look::config;
    OPERATOR GET    "/admin/logs" => logs::tail;
    ADMIN    PUT    "/admin/log-level" => logs::set_level;
    ADMIN    GET    "/admin/tokens" => tokens::list;
    ADMIN    POST   "/admin/tokens" => tokens::create;
    ADMIN    DELETE "/admin/tokens/{id}" => tokens::revoke;
    OPERATOR GET    "/admin/failures" => failures::list;
    OPERATOR POST   "/admin/failures/redrive" => failures::many::redrive;
    OPERATOR GET    "/admin/failures/causes" => failures::causes;
    OPERATOR GET    "/admin/failures/{id}" => failures::show;
    OPERATOR PATCH  "/admin/failures/{id}/retry" => failures::decide::retry;
    OPERATOR POST   "/admin/failures/{id}/discard" => failures::decide::discard;
    OPERATOR POST   "/admin/failures/{id}/mark-sent" => failures::decide::mark_sent;
    OPEN     GET    "/healthz" => health::healthz;
    OPEN     GET    "/readyz" => health::readyz;
    OPEN     GET    "/metrics" => health::metrics;
    OPEN     GET    "/" => session::page;
    OPEN     GET    "/failures" => session::failures_page;
    OPEN     GET    "/messages" => session::messages_page;
    OPEN     GET    "/alerts" => session::alerts_page;
    OPEN     GET    "/issues" => session::issues_page;
    OPEN     GET    "/sinks" => session::sinks_page;
    OPEN     GET    "/login" => session::form;
    OPEN     POST   "/login" => session::sign_in;
    VIEWER   POST   "/logout" => session::sign_out;
    OPEN     GET    "/assets/{hash}/{name}" => openapi::asset;
};

/// Routes of test builds only; they are no part of the description.
#[cfg(feature = "fault-injection")]
pub const FAULT_ROUTES: &[RouteSpec] = routes! {
    ADMIN POST "/admin/actors/{name}/fault" => actors::fault;
};
/// Routes of test builds only; they are no part of the description.
#[cfg(not(feature = "fault-injection"))]
pub const FAULT_ROUTES: &[RouteSpec] = &[];

/// Registers every route, one resource a path, and the answers for paths and methods that are none.
pub fn configure(config: &mut ServiceConfig) {
    let all = || ROUTES.iter().chain(FAULT_ROUTES);
    let mut paths: Vec<&str> = Vec::new();
    for spec in all() {
        if !paths.contains(&spec.path) {
            paths.push(spec.path);
        }
    }
    for path in paths {
        let mut resource = web::resource(path);
        let mut allow = Vec::new();
        for spec in all().filter(|spec| spec.path == path) {
            let Ok(method) = spec.method.parse::<Method>() else { continue };
            resource = resource.route((spec.make)().method(method.clone()));
            allow.push(method);
        }
        if allow.contains(&Method::GET) {
            // HEAD is GET without the body, which the server leaves out by itself.
            if let Some(spec) = all().find(|spec| spec.path == path && spec.method == "GET") {
                resource = resource.route((spec.make)().method(Method::HEAD));
            }
            allow.push(Method::HEAD);
        }
        config.service(resource.default_service(web::to(move || {
            let error = ApiError::new(ErrorCode::MethodNotAllowed, "the path does not take this method").allow(allow.clone());
            async move { Err::<actix_web::HttpResponse, _>(error) }
        })));
    }
    config.default_service(web::to(|| async {
        Err::<actix_web::HttpResponse, _>(ApiError::new(ErrorCode::NotFound, "there is nothing at this path"))
    }));
}
