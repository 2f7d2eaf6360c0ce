//! The description of the API: what the handlers' own descriptions don't say by themselves.
//!
//! Bounds stand in it as they are checked. Where the check counts bytes, `maxLength` (which counts characters) has the
//! same number and the description says "bytes": right for ASCII, too generous for the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{OpenApi as Description, Ref, RefOr};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use uuid::Uuid;

use crate::ingest::events::MAX_EVENTS;
use crate::ingest::readings::{MAX_READINGS, ProducerKind};
use crate::problem::ProblemDetails;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Farol",
        description = "Readings in, alerts and a live dashboard out. Errors are problem details (RFC 9457). \
            With an access token set, everything but the probes asks for it, as a bearer token or as the password of \
            basic credentials.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "readings", description = "Measurements of sensors"),
        (name = "sensors", description = "Sensors and their state"),
        (name = "services", description = "Services: their state, metrics, checks, and the resilience policies around them"),
        (name = "alerts", description = "What the rules found"),
        (name = "events", description = "CloudEvents of the system and of its users"),
        (name = "stream", description = "What happens, as it happens"),
        (name = "pipeline", description = "Consumers, producers, partitions"),
        (name = "status", description = "The state of the whole"),
        (name = "probes", description = "For orchestrators"),
    ),
    components(schemas(ProblemDetails, ProducerKind)),
)]
struct Base;

/// The description without paths.
pub(crate) fn base() -> Description {
    Base::openapi()
}

/// The description as JSON, with the few things that its builder has no words for.
pub(crate) fn to_json(description: Description) -> Vec<u8> {
    let mut json =
        serde_json::to_value(description).expect("a description has string keys, so it serialises");
    let arrays = [
        ("/components/schemas/ReadingBody/oneOf/1", 1, MAX_READINGS),
        ("/components/schemas/EventBody/oneOf/1", 1, MAX_EVENTS),
        (
            "/paths/~1api~1events/post/requestBody/content/application~1cloudevents-batch+json/schema",
            0,
            MAX_EVENTS,
        ),
    ];
    for (pointer, least, most) in arrays {
        if let Some(array) = json.pointer_mut(pointer).and_then(Value::as_object_mut) {
            array.insert("minItems".to_owned(), least.into());
            array.insert("maxItems".to_owned(), most.into());
        }
    }
    if let Some(schemas) = json.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        // CloudEvents 1.0, section 3.1: names of extension attributes are lower-case letters and digits.
        if let Some(event) = schemas.get_mut("NewEvent").and_then(Value::as_object_mut) {
            event.insert("additionalProperties".to_owned(), Value::Bool(false));
            event.insert(
                "patternProperties".to_owned(),
                json!({ "^[a-z0-9]+$": { "type": ["string", "boolean", "integer"], "maxLength": 1024,
                        "minimum": i64::MIN, "maximum": u64::MAX } }),
            );
        }
    }
    serde_json::to_vec(&json).expect("it came from JSON")
}

fn problems(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let response = |text: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        RefOr::T(
            ResponseBuilder::new().description(text).content("application/problem+json", content).build(),
        )
    };
    statuses.iter().map(|(status, text)| (status.to_string(), response(text))).collect()
}

const BAD_REQUEST: (u16, &str) = (400, "The request can't be understood; `detail` says why");
const UNAUTHORIZED: (u16, &str) = (401, "Credentials are needed");
const FORBIDDEN: (u16, &str) = (403, "The host name or the origin is a foreign one");
const NOT_FOUND: (u16, &str) = (404, "There is no such thing");
const TIMEOUT: (u16, &str) = (408, "The body did not come in time");
const CONFLICT: (u16, &str) = (409, "The present state does not allow that");
const TOO_LARGE: (u16, &str) = (413, "The request is too large");
const UNSUPPORTED: (u16, &str) = (415, "The content type is not accepted here");
const UNAVAILABLE: (u16, &str) =
    (503, "The server is busy, or a needed part is not available; `detail` says which");

macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident = [$($status:expr),*];)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problems(&[$($status),*])
                }
            }
        )*
    };
}

problem_sets! {
    /// Of a probe.
    ProbeProblems = [BAD_REQUEST, FORBIDDEN, UNAVAILABLE];
    /// Of a list or a state.
    GetProblems = [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, UNAVAILABLE];
    /// Of one thing.
    ItemProblems = [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, UNAVAILABLE];
    /// Of the stream.
    StreamProblems = [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, UNAVAILABLE];
    /// Of what is sent.
    PostProblems = [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, TIMEOUT, TOO_LARGE, UNSUPPORTED, UNAVAILABLE];
    /// Of a command without a body.
    CommandProblems = [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, UNAVAILABLE];
    /// Of an acknowledgement.
    AcknowledgeProblems =
        [BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TIMEOUT, CONFLICT, TOO_LARGE, UNSUPPORTED, UNAVAILABLE];
}

/// One reading or an array of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "only its schema is used; readings are parsed where they lie"
)]
pub(crate) enum ReadingBody {
    /// One reading.
    One(NewReading),
    /// An array of them.
    Many(Vec<NewReading>),
}

/// A reading as it is sent. Only `sensor_id` and `value` are required; unknown fields are kept.
#[derive(ToSchema)]
#[schema(
    as = NewReading,
    example = json!({"sensor_id": "temp-sensor-001", "sensor_type": "temperature", "value": 42.48, "unit": "°C",
        "timestamp": "2025-09-16T21:41:41.011144Z", "location": {"machine_id": "machine-001"}})
)]
#[expect(dead_code, reason = "only its schema is used; readings are parsed where they lie")]
pub(crate) struct NewReading {
    /// Who measures. At most 256 bytes, no control characters, not `.` or `..`.
    #[schema(min_length = 1, max_length = 256, pattern = "^(?!\\.{1,2}$)[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    sensor_id: String,
    /// The measured value; a finite number.
    value: f64,
    /// When it was measured (RFC 3339), from 1970 to 24 hours after arrival; the arrival time if absent.
    #[schema(
        nullable,
        pattern = "^(19[7-9][0-9]|20[01][0-9]|202[0-5])-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?Z$"
    )]
    timestamp: Option<String>,
    /// What is measured. At most 128 bytes, no control characters.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    sensor_type: Option<String>,
    /// Where the sensor stands.
    location: Option<NewLocation>,
    /// The unit of the value. At most 128 bytes, no control characters.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    unit: Option<String>,
    /// What the sender thinks of the value.
    alert_level: Option<farol_event::AlertLevel>,
    /// How far the sender trusts the value.
    #[schema(minimum = 0, maximum = 1)]
    quality: Option<f64>,
    /// The sender's own notes.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// Where a sensor stands. Every part has at most 128 bytes and no control characters.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used; readings are parsed where they lie")]
pub(crate) struct NewLocation {
    /// Section of the plant.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    factory_section: Option<String>,
    /// The machine that carries the sensor.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    machine_id: Option<String>,
    /// Zone within the section.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    zone: Option<String>,
}

/// One event or an array of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only its schema is used")]
pub(crate) enum EventBody {
    /// One event.
    One(NewEvent),
    /// An array of them.
    Many(Vec<NewEvent>),
}

/// An event as it is sent: CloudEvents 1.0 in structured JSON. Texts have at most 1024 bytes and no control characters.
/// Extension attributes are accepted under any name of lower-case letters and digits.
#[derive(ToSchema)]
#[schema(example = json!({"specversion": "1.0", "id": "7f1c", "type": "transacao_iniciada", "source": "loja",
    "data": {"valor": 12.5}}))]
#[expect(dead_code, reason = "only its schema is used; events are parsed by farol-event")]
pub(crate) struct NewEvent {
    /// Always `1.0`.
    specversion: farol_event::envelope::SpecVersion,
    /// Unique per source.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    id: String,
    /// What happened. Types by which Farol keeps account of itself (`consumidor_…`, `produtor_pulsou`,
    /// `particoes_reatribuidas`, `regra_alterada`, `notificacao_enviada`, `alerta_reconhecido`, `silencio_…`) are refused.
    #[serde(rename = "type")]
    #[schema(
        min_length = 1,
        max_length = 1024,
        pattern = "^(?!(consumidor_(entrou|saiu|pulsou)|produtor_pulsou|particoes_reatribuidas|regra_alterada|notificacao_enviada|alerta_reconhecido|silencio_(criado|expirado))$)[^\\x00-\\x1f\\x7f-\\x9f]+$"
    )]
    event_type: String,
    /// The service, sensor or component that it is about. Of what tells of a service at most 256 bytes, and not `.` or `..`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    source: String,
    /// When it happened, to 24 hours after arrival; the arrival time if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<String>,
    /// Version of the shape of `data`.
    #[schema(minimum = 1, maximum = 4_294_967_295_u32)]
    dataversion: Option<u32>,
    /// Ties together what belongs to one command or request.
    correlationid: Option<Uuid>,
    /// W3C trace context.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    traceparent: Option<String>,
    /// CloudEvents' `subject`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    subject: Option<String>,
    /// CloudEvents' `datacontenttype`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    datacontenttype: Option<String>,
    /// CloudEvents' `dataschema`.
    #[schema(min_length = 1, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    dataschema: Option<String>,
    /// The facts.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
}
