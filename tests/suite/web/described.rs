//! The description of the interface against real answers: what an answer has, its schema names, and the other way round. The fuzzer asks
//! for types and what is required; it cannot see what nobody wrote down.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::support::daemon::{Answer, Daemon, Setup, free_address};

struct Description(Value);

impl Description {
    fn of(daemon: &Daemon) -> Self {
        Self(daemon.get("/api/openapi.json").json())
    }

    /// The schema itself, where it is only named.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        name.map_or(schema, |name| self.resolve(&self.0["components"]["schemas"][name]))
    }

    /// How `answer` differs from the form it should have, by place.
    fn differences(&self, schema: &Value, answer: &Value, at: &str, found: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if let Some(forms) = schema["oneOf"].as_array() {
            let tried = forms.iter().map(|form| {
                let mut found = Vec::new();
                self.differences(form, answer, at, &mut found);
                found
            });
            return found.extend(tried.min_by_key(Vec::len).unwrap_or_default());
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            // Whatever it is.
            _ => return,
        };
        let is = match answer {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) if types.contains(&"number") => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&is) {
            return found.push(format!("{at} is {is} and not {types:?}"));
        }
        for item in answer.as_array().into_iter().flatten() {
            self.differences(&schema["items"], item, &format!("{at}[]"), found);
        }
        let (Some(answer), Some(named)) = (answer.as_object(), schema["properties"].as_object()) else { return };
        for (name, value) in answer {
            match named.get(name) {
                Some(schema) => self.differences(schema, value, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name} is not described")),
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(required.filter(|name| !answer.contains_key(*name)).map(|name| format!("{at}.{name} is missing")));
    }

    /// Asserts that an answer is as the description says.
    fn holds(&self, method: &str, path: &str, answer: &Answer) {
        let response = &self.0["paths"][path][method]["responses"][answer.status.to_string()];
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path} {}: {response}", answer.status);
        let mut found = Vec::new();
        self.differences(schema, &answer.json(), "", &mut found);
        assert!(found.is_empty(), "{method} {path}: {found:#?}\n{}", answer.body);
    }

    /// Paths that can be asked for as they are and answer with JSON.
    fn plain(&self) -> Vec<String> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let is_json = |item: &Value| item["get"]["responses"]["200"]["content"]["application/json"].is_object();
        paths.filter(|(path, item)| !path.contains('{') && is_json(item)).map(|(path, _)| path.clone()).collect()
    }
}

/// A daemon with something of everything: an alert, a failing source, a reading that contradicts another, a delivery that failed.
fn busy() -> Daemon {
    let (nobody, silent) = (free_address(), free_address());
    let daemon = Setup::with(&format!(
        "[outbox]\nmax_attempts = 1\n[buffer]\nflush_interval = \"50ms\"\n\
         [[webhooks]]\nname = \"hook\"\nurl = \"http://{nobody}/\"\n[[sources]]\nname = \"plant\"\nurl = \"http://{silent}/\"\n\
         [[rules]]\nname = \"overheat\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350.0\nlevel = \"CRITICAL\"\n\
         [[routes]]\nsinks = [\"log\"]\n"
    ))
    .start();
    let reading = |temperature: f64| json!({"engineId": "e1", "timestamp": 1_700_000_000_000_i64, "temperature": temperature});
    for temperature in [400.0, 401.0] {
        let pushed = daemon.post("/api/readings?ack=store", &reading(temperature).to_string());
        assert_eq!(pushed.status, 202, "{pushed:?}");
        Description::of(&daemon).holds("post", "/api/readings", &pushed);
    }
    let made = daemon.post("/api/messages", &json!({"via": "hook", "subject": "s", "body": "b"}).to_string());
    assert_eq!(made.status, 202, "{made:?}");
    assert_eq!(daemon.post("/api/issues", r#"{"title":"bearing"}"#).status, 201);
    let failed = |daemon: &Daemon, kind: &str| daemon.get(&format!("/admin/failures?kind={kind}")).json()["items"][0].is_object();
    let all = |daemon: &Daemon| {
        let duties = daemon.get("/admin/duties").json();
        failed(daemon, "reading")
            && failed(daemon, "delivery")
            && duties["statistics"].is_object()
            && duties["integrity"].is_object()
    };
    for duty in ["statistics", "integrity"] {
        assert_eq!(daemon.post(&format!("/admin/duties/{duty}/run"), "{}").status, 202);
    }
    daemon.wait_for("something of everything", Duration::from_secs(60), all);
    daemon
}

#[test]
fn every_answer_has_what_its_description_names_and_nothing_else() {
    let daemon = busy();
    let described = Description::of(&daemon);
    let plain = described.plain();
    assert!(plain.len() >= 20, "{plain:?}");
    for path in &plain {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        described.holds("get", path, &answer);
    }

    let of = |kind: &str| {
        daemon.get(&format!("/admin/failures?kind={kind}")).json()["items"][0]["id"].as_str().expect("an id").to_owned()
    };
    let (reading, delivery) = (of("reading"), of("delivery"));
    for id in [&reading, &delivery] {
        described.holds("get", "/admin/failures/{id}", &daemon.get(&format!("/admin/failures/{id}")));
    }
    let decide = |method: &str, id: &str, verb: &str, reason: &str| {
        let body = json!({"reason": reason}).to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = daemon.request(method, &format!("/admin/failures/{id}/{verb}"), &headers, &body);
        assert_eq!(answer.status, 200, "{verb} {id}: {answer:?}");
        described.holds(&method.to_ascii_lowercase(), &format!("/admin/failures/{{id}}/{verb}"), &answer);
    };
    decide("PATCH", &reading, "retry", "once more");
    decide("POST", &reading, "discard", "the first was right");
    decide("PATCH", &delivery, "retry", "once more");
    daemon.wait_for("it failed again", Duration::from_secs(60), |daemon| {
        daemon.get(&format!("/admin/failures/{delivery}")).json()["state"] == "dead"
    });
    let redriven = daemon.post("/admin/failures/redrive", r#"{"reason":"again","kind":"delivery","perSecond":1}"#);
    assert_eq!(redriven.json()["redriven"], 1, "{redriven:?}");
    described.holds("post", "/admin/failures/redrive", &redriven);
    daemon.wait_for("it failed once more", Duration::from_secs(60), |daemon| {
        daemon.get(&format!("/admin/failures/{delivery}")).json()["state"] == "dead"
    });
    decide("POST", &delivery, "mark-sent", "they called back");
    described.holds("post", "/admin/duties/{name}/run", &daemon.post("/admin/duties/statistics/run", "{}"));
    described.holds("post", "/admin/actors/{name}/restart", &daemon.post("/admin/actors/MonitorActor/restart", "{}"));
}

#[test]
fn no_answer_is_described_as_whatever_it_may_be() {
    let daemon = Setup::default().start();
    let described = Description::of(&daemon);
    let mut seen = BTreeSet::new();
    for (path, item) in described.0["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let Some(schema) = response["content"]["application/json"]["schema"].as_object() else { continue };
                let schema = described.resolve(&json!(schema)).clone();
                let forms = schema["oneOf"].as_array().cloned().unwrap_or_else(|| vec![schema]);
                let named = forms.iter().all(|form| described.resolve(form)["properties"].is_object());
                assert!(named, "{method} {path} {status}: {forms:?}");
                seen.insert((path, method));
            }
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
}
