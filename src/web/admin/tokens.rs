//! Tokens: list, create, revoke.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    config::units::parse_duration,
    domain::role::Role,
    web::{
        audit::begin,
        auth::Admin,
        body::Json,
        error::ApiError,
        openapi::{Failure, Tokens},
        state::WebState,
    },
};

/// `GET /admin/tokens`: newest first, the revoked ones included, never the secrets.
///
/// # Errors
/// 503 where the control store does not answer.
#[utoipa::path(get, path = "/admin/tokens", tag = "admin", responses((status = 200, description = "Newest first, without secrets", body = Tokens), Failure))]
pub async fn list(_who: Admin, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let items = state.tokens.list().await?;
    Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": null})))
}

/// Body of a new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenBody {
    /// Unique among live tokens: 1 to 64 of letters, digits, `.`, `_`, `:`, `-`
    name: String,
    /// ingest, viewer, operator or admin
    #[schema(value_type = String)]
    role: Role,
    /// It ends after this, such as `30d`; without it never
    expires: Option<String>,
}

/// `POST /admin/tokens`: the answer is the only one that holds the secret.
///
/// # Errors
/// 400 for a bad name or duration, 409 where a live token has the name.
#[utoipa::path(post, path = "/admin/tokens", tag = "admin", request_body = NewTokenBody,
    responses((status = 201, description = "The token; it is shown this once", body = crate::web::openapi::NewTokenAnswer), Failure))]
pub async fn create(who: Admin, body: Json<NewTokenBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let NewTokenBody { name, role, expires } = body.0;
    let lifetime = expires.map(|text| parse_duration(&text)).transpose().map_err(|error| ApiError::field("expires", error))?;
    let begun = begin(&state, &who.0, "token.create", &name, None).await?;
    let made = state.tokens.create(&name, role, lifetime).await.map_err(ApiError::from);
    let made = begun.end(&state, made, "ok").await?;
    let mut answer = json!(made.info);
    answer["token"] = json!(made.text);
    Ok(HttpResponse::Created().json(answer))
}

/// `DELETE /admin/tokens/{id}`: by id or name; its sessions and streams end at once.
///
/// # Errors
/// 404 where no live token has this id or name.
#[utoipa::path(delete, path = "/admin/tokens/{id}", tag = "admin", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The token, revoked", body = crate::web::openapi::Token), Failure))]
pub async fn revoke(who: Admin, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let begun = begin(&state, &who.0, "token.revoke", &id, None).await?;
    let revoked = state.tokens.revoke(&id).await.map_err(ApiError::from);
    let info = begun.end(&state, revoked, "ok").await?;
    Ok(HttpResponse::Ok().json(info))
}
