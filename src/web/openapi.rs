//! The description of the interface: OpenAPI 3.1, made from the handlers, and its readable form.
//!
//! The types here only describe: answers are serialized from the values of the stages themselves.

use std::{collections::BTreeMap, fmt::Write, sync::OnceLock};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ACCEPT_LANGUAGE, CONTENT_TYPE},
    },
};
use utoipa::{
    IntoParams, IntoResponses, Modify, OpenApi, ToSchema,
    openapi::{
        HttpMethod,
        path::Operation,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{
    admin, alerts,
    auth::{SESSION_COOKIE, Viewer},
    body, health, issues, messages, push, query, session, silences, stream,
    ui::{Lang, render_document, serve_html},
};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(title = "belayd", description = "Engine readings in, alerts out: what is acknowledged is kept.", license(name = "MIT OR Apache-2.0")),
    modifiers(&Schemes),
    components(schemas(ErrorBody, ErrorObject)),
    security(("token" = []), ("session" = [])),
    paths(
        push::push, query::readings, query::engines, query::receipt,
        alerts::list, alerts::show, alerts::acknowledge,
        messages::create, messages::list, messages::show, messages::cancel,
        issues::list, issues::open, issues::show, issues::comment, issues::start, issues::resolve, issues::close, issues::reopen,
        silences::list, silences::show, silences::create, silences::expire, silences::preview,
        admin::actors::list, admin::actors::restart, admin::duties::list, admin::duties::run, admin::look::buffer, admin::look::outbox, admin::look::instances, admin::look::audit_rows, admin::look::config,
        admin::logs::tail, admin::logs::set_level, admin::tokens::list, admin::tokens::create, admin::tokens::revoke,
        admin::failures::list, admin::failures::causes, admin::failures::show, admin::failures::decide::retry,
        admin::failures::decide::discard, admin::failures::decide::mark_sent, admin::failures::many::redrive,
        admin::sinks::list, admin::sinks::test,
        health::healthz, health::readyz, health::metrics,
        document, readable,
        session::page, session::failures_page, session::messages_page, session::alerts_page, session::issues_page, session::sinks_page, session::form, session::sign_in, session::sign_out, stream::snapshot, stream::state, asset
    ),
    tags(
        (name = "readings", description = "In and out"), (name = "alerts", description = "What rules and the daemon raise"), (name = "issues", description = "What people work on"), (name = "messages", description = "To people"),
        (name = "failures", description = "What waits for a person"), (name = "sinks", description = "The ways out"),
        (name = "admin", description = "The daemon itself"),
        (name = "health", description = "For probes and Prometheus"), (name = "page", description = "For browsers")
    )
)]
pub struct Description;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        name_operations(&mut api.paths);
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE))));
    }
}

/// Gives each operation a name that no other has, as the specification wants it: method and path. The functions' own names repeat.
fn name_operations(paths: &mut utoipa::openapi::Paths) {
    for (path, item) in &mut paths.paths {
        let words: Vec<&str> = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let operations = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(std::iter::once(method).chain(words.iter().copied()).collect::<Vec<_>>().join("_"));
            }
        }
    }
}

/// `ack` of a push.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // It describes.
pub struct AckParam {
    /// What the answer waits for: the tier's own level, memory, store for the database's commit, or relay for Kafka's where there is a
    /// relay; without it the tier's own level
    ack: Option<String>,
}

/// Every failure has this form.
#[derive(IntoResponses)]
#[response(status = "default", description = "A failure; `code` is stable, `hint` says what to do")]
#[allow(dead_code)] // It describes.
pub struct Failure(#[to_schema] ErrorBody);

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(ToSchema)]
        #[schema(rename_all = "camelCase")]
        #[allow(dead_code, missing_docs)] // It describes.
        pub struct $name { $($(#[$attribute])* $field: $type,)* }
    )*};
}

mod failed;
mod looks;
mod state;
mod told;

pub use self::{failed::*, looks::*, state::*, told::*};

shapes! {
    /// The body of a failure.
    ErrorBody { error: ErrorObject, }
    /// What went wrong.
    ErrorObject {
        /// Stable word
        code: String,
        /// For a person
        message: String,
        /// What to do
        hint: String,
        request_id: String,
        /// One entry for each item or field concerned
        details: Vec<serde_json::Value>,
    }
    /// A reading: engineId, at least one metric, any further finite number.
    ReadingsBody {
        engine_id: String,
        /// RFC 3339 or milliseconds since the epoch; without it the time of arrival
        timestamp: Option<String>,
        status: Option<String>,
        temperature: Option<f64>,
        rpm: Option<f64>,
        pressure: Option<f64>,
        fuel_flow: Option<f64>,
    }
    /// What became of a push.
    PushAnswer {
        /// How many were taken
        accepted: u32,
        rejected: Vec<RejectedItem>,
        /// The level reached
        ack: String,
        receipt: ReceiptObject,
    }
    /// One item that was refused.
    RejectedItem { index: u32, code: String, message: String, }
    /// The numbers of what was taken: the nth has firstSeq + n.
    ReceiptObject { stream: String, first_seq: u64, last_seq: u64, }
    /// All engines.
    Engines { total: u64, /// How many of them have an alert
        alarmed: u64, items: Vec<Engine>, }
    /// One engine.
    Engine {
        engine_id: String,
        observed_at: String,
        status: Option<String>,
        temperature: Option<f64>,
        rpm: Option<f64>,
        pressure: Option<f64>,
        fuel_flow: Option<f64>,
        /// INFO, WARNING or CRITICAL; null where none is open
        alarm: Option<String>,
        /// Last samples of temperature and rpm, oldest first
        trend: serde_json::Value,
    }
    /// A page of issues.
    Issues { items: Vec<IssueItem>, next_cursor: Option<String>, }
    /// One issue.
    IssueItem {
        id: String,
        title: String,
        body: String,
        /// OPEN, IN_PROGRESS, RESOLVED or CLOSED
        state: String,
        /// INFO, WARNING or CRITICAL
        level: Option<String>,
        /// Of the alert that opened it: rule or system
        kind: Option<String>,
        /// The rule or condition
        name: Option<String>,
        /// The engine or part; * where the issue collects several
        subject: Option<String>,
        /// The name of a token, or alert
        opened_by: String,
        views: u64,
        comment_count: u64,
        opened_at: String,
        updated_at: String,
        resolved_at: Option<String>,
        closed_at: Option<String>,
        /// With one issue only: at, event, actor, text, alertId
        events: Option<Vec<serde_json::Value>>,
    }
    /// Actors and loops.
    Actors { items: Vec<Actor>, loops: Vec<Loop>, next_cursor: Option<String>, }
    /// One loop that is no actor.
    Loop { name: String, last_progress_ms: u64, /// Silence after which it counts as stuck
        limit_ms: u64, }
    /// One actor.
    Actor {
        name: String,
        /// starting, running, backoff, stalled or stopped
        state: String,
        generation: u64,
        restarts: u64,
        restarts_by_reason: serde_json::Value,
        last_restart_ms: f64,
        mailbox_depth: u64,
        mailbox_bound: u64,
        last_progress_ms: u64,
    }
    /// Tokens without their secrets.
    Tokens { items: Vec<Token>, next_cursor: Option<String>, }
    /// One token.
    Token {
        id: String,
        name: String,
        role: String,
        created_at: String,
        expires_at: Option<String>,
        revoked_at: Option<String>,
        last_used_at: Option<String>,
    }
    /// A token at the only moment at which its secret is shown.
    NewTokenAnswer { id: String, name: String, role: String, created_at: String, expires_at: Option<String>, /// The secret
        token: String, }
    /// It lives.
    Alive { status: String, }
    /// Whether readings are taken.
    Ready {
        /// ready, buffering, starting, full, failing or stopping
        state: String,
        /// By part: ok, or what is wrong
        checks: serde_json::Value,
    }
}

/// The description as JSON, made once.
pub fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| Description::openapi().to_json().unwrap_or_else(|_| "{}".into()))
}

/// `GET /api/openapi.json`: this description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "page", responses((status = 200, description = "This description", body = OpenApiDocument), Failure))]
pub async fn document(_who: Viewer) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(json())
}

/// `GET /api/docs`: the same for a person.
#[utoipa::path(get, path = "/api/docs", tag = "page", responses((status = 200, description = "This description, readable", content_type = "text/html"), Failure))]
pub async fn readable(_who: Viewer, request: HttpRequest) -> HttpResponse {
    let lang = Lang::from_accept_language(body::header_str(&request, ACCEPT_LANGUAGE));
    serve_html(&request, StatusCode::OK, lang, render_document(lang, "belayd API", &html()))
}

/// `GET /assets/{hash}/{name}`: what the page loads.
#[utoipa::path(get, path = "/assets/{hash}/{name}", tag = "page",
    params(("hash" = String, Path, description = "Over all files"), ("name" = String, Path, description = "Of the file")),
    responses((status = 200, description = "Style sheet or module", content_type = "text/plain"), Failure))]
pub async fn asset(request: HttpRequest) -> HttpResponse {
    super::ui::serve_asset(request).await
}

/// Method and path of every operation described.
pub fn operations() -> Vec<(&'static str, String)> {
    let api = Description::openapi();
    let described = api.paths.paths.iter();
    described
        .flat_map(|(path, item)| methods(item).into_iter().map(|(method, _)| (method, path.clone())).collect::<Vec<_>>())
        .collect()
}

fn methods(item: &utoipa::openapi::PathItem) -> Vec<(&'static str, &Operation)> {
    let known = [
        (word(HttpMethod::Get), &item.get),
        (word(HttpMethod::Post), &item.post),
        (word(HttpMethod::Put), &item.put),
        (word(HttpMethod::Patch), &item.patch),
        (word(HttpMethod::Delete), &item.delete),
    ];
    known.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?))).collect()
}

fn word(method: HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        _ => "OTHER",
    }
}

/// The readable form: one table a tag, then the codes of failures.
fn html() -> String {
    let api = Description::openapi();
    let mut by_tag = BTreeMap::<&str, String>::new();
    for (path, item) in &api.paths.paths {
        for (method, operation) in methods(item) {
            let tag = operation.tags.as_ref().and_then(|tags| tags.first()).map_or("other", String::as_str);
            let rows = by_tag.entry(tag).or_default();
            let summary = operation.summary.as_deref().unwrap_or_default();
            let summary = summary.split_once(": ").map_or(summary, |(_, rest)| rest);
            let parameters = operation.parameters.iter().flatten().fold(String::new(), |mut text, parameter| {
                let utoipa::openapi::RefOr::T(parameter) = parameter else { return text };
                let _ = write!(
                    text,
                    "<br><code>{}</code> {}",
                    escape(&parameter.name),
                    escape(parameter.description.as_deref().unwrap_or(""))
                );
                text
            });
            let _ = write!(
                rows,
                "<tr><td><code>{method}</code></td><td><code>{}</code></td><td>{}{parameters}</td></tr>",
                escape(path),
                escape(summary)
            );
        }
    }
    let mut page = String::from("<p><a href=\"/api/openapi.json\">OpenAPI 3.1</a></p>");
    for (tag, rows) in by_tag {
        let _ = write!(page, "<h2>{}</h2><table><tbody>{rows}</tbody></table>", escape(tag));
    }
    page.push_str("<h2>errors</h2><table><tbody>");
    for code in super::error::ErrorCode::ALL {
        let _ = write!(
            page,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            code.status(),
            code.as_str(),
            escape(code.hint())
        );
    }
    for reason in crate::ingest::reason::Reason::all() {
        let _ =
            write!(page, "<tr><td>{}</td><td><code>{reason}</code></td><td>{}</td></tr>", reason.status(), escape(reason.hint()));
    }
    page.push_str("</tbody></table>");
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::web::routes::{Access, ROUTES};

    #[test]
    fn the_description_and_the_routes_are_the_same_both_ways() {
        let described: BTreeSet<(String, String)> =
            operations().into_iter().map(|(method, path)| (method.to_owned(), path)).collect();
        let served: BTreeSet<(String, String)> = ROUTES.iter().map(|spec| (spec.method.to_owned(), spec.path.to_owned())).collect();
        assert_eq!(described, served);
        assert_eq!(served.len(), ROUTES.len(), "no route stands twice");
    }

    #[test]
    fn it_is_openapi_3_1_and_every_operation_says_what_it_does_and_fails_in_one_form() {
        let api: Value = serde_json::from_str(json()).expect("is JSON");
        assert!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", api["openapi"]);
        let mut names = BTreeSet::new();
        for spec in ROUTES {
            let operation = &api["paths"][spec.path][spec.method.to_ascii_lowercase()];
            assert!(names.insert(operation["operationId"].to_string()), "{spec:?}: {}", operation["operationId"]);
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{spec:?}");
            if spec.access != Access::Open {
                assert!(operation["responses"]["default"].is_object() || operation["responses"]["401"].is_object(), "{spec:?}");
            }
            let named = spec.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            for name in named {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                assert!(
                    parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "path"),
                    "{spec:?}: {name}"
                );
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = json();
        let api: Value = serde_json::from_str(text).expect("is JSON");
        for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(api["components"]["schemas"][reference].is_object(), "{reference}");
        }
    }

    #[test]
    fn the_readable_form_names_every_route_and_every_error() {
        let page = html();
        for spec in ROUTES {
            assert!(page.contains(&format!("<code>{}</code>", escape(spec.path))), "{spec:?}");
        }
        assert!(page.contains("gzip_bomb") && page.contains("buffer_full"));
    }
}
