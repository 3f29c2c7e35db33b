//! Answers over HTTP for pages and their files: compression, caching, and the headers that keep a page safe.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
    },
};

use super::{
    assets::{asset, gzip},
    lang::Lang,
};

/// The page loads its own files and speaks to its own server, nothing else: no inline script, no inline style, no frame
/// around it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Handler of `GET /assets/{hash}/{name}`: the file, gzipped where the client takes it, to be kept for ever; 304 where it
/// has it already; 404 for any other path.
pub async fn serve_asset(request: HttpRequest) -> HttpResponse {
    let Some(asset) = asset(request.path()) else {
        return HttpResponse::NotFound().finish();
    };
    let known = request
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag));
    let mut answer = HttpResponse::build(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    answer
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((ETAG, asset.etag.clone()))
        .insert_header((VARY, "Accept-Encoding"));
    if known {
        return answer.finish();
    }
    answer.insert_header((CONTENT_TYPE, asset.content_type)).insert_header(("X-Content-Type-Options", "nosniff"));
    if takes_gzip(&request) {
        answer.insert_header((CONTENT_ENCODING, "gzip")).body(asset.gzip.as_slice())
    } else {
        answer.body(asset.body)
    }
}

/// A rendered page as an answer: never stored by a cache, gzipped where the client takes it, under the strict policy.
pub fn serve_html(request: &HttpRequest, status: StatusCode, lang: Lang, html: String) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    answer
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_LANGUAGE, lang.tag()))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((VARY, "Accept-Encoding, Accept-Language, Cookie"))
        .insert_header(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .insert_header(("X-Frame-Options", "DENY"))
        // Not "no-referrer": under that a browser sends its forms with "Origin: null", and sign-in could not be told from a forgery.
        .insert_header(("Referrer-Policy", "same-origin"));
    if takes_gzip(request) {
        answer.insert_header((CONTENT_ENCODING, "gzip")).body(gzip(html.as_bytes()))
    } else {
        answer.body(html)
    }
}

/// Whether `Accept-Encoding` names gzip with a weight above zero.
fn takes_gzip(request: &HttpRequest) -> bool {
    let header = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|part| {
        let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

#[cfg(test)]
mod tests {
    use actix_web::{body::to_bytes, test::TestRequest};

    use super::{super::assets::asset_url, *};

    #[actix_web::test]
    async fn a_file_is_gzipped_for_those_who_take_it_and_not_sent_twice() {
        let url = asset_url("style.css");
        let plain = serve_asset(TestRequest::with_uri(&url).to_http_request()).await;
        assert_eq!(plain.status(), StatusCode::OK);
        assert!(plain.headers().get(CONTENT_ENCODING).is_none());
        let etag = plain.headers().get(ETAG).expect("set").clone();

        let packed =
            serve_asset(TestRequest::with_uri(&url).insert_header((ACCEPT_ENCODING, "br, gzip;q=0.8")).to_http_request()).await;
        assert_eq!(packed.headers().get(CONTENT_ENCODING).expect("set"), "gzip");
        assert!(to_bytes(packed.into_body()).await.unwrap().len() < to_bytes(plain.into_body()).await.unwrap().len());

        let refused = serve_asset(TestRequest::with_uri(&url).insert_header((ACCEPT_ENCODING, "gzip;q=0")).to_http_request()).await;
        assert!(refused.headers().get(CONTENT_ENCODING).is_none());

        let again = serve_asset(TestRequest::with_uri(&url).insert_header((IF_NONE_MATCH, etag)).to_http_request()).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

        let missing = serve_asset(TestRequest::with_uri("/assets/x/style.css").to_http_request()).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    }
}
