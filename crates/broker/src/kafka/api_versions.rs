//! ApiVersions: what is served.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::api::{Answer, Call, Pending, reply};
use super::apis::Apis;

/// Answers with the table.
pub(super) async fn api_versions(call: Call, request: ApiVersionsRequest) -> Answer<ApiVersionsResponse> {
    if call.version >= 3 {
        tracing::debug!(
            peer = %call.connection.peer,
            software = %request.client_software_name,
            version = %request.client_software_version,
            "Kafka client"
        );
    }
    listing(&call.server.apis).into()
}

/// The answer to a version that isn't served: in version 0, which every client can read, and with what is served.
pub(super) fn unsupported_version(call: &Call, correlation_id: i32) -> Pending {
    let response = listing(&call.server.apis).with_error_code(ResponseError::UnsupportedVersion.code());
    Pending::Ready(reply(response, call, correlation_id))
}

fn listing(apis: &Apis) -> ApiVersionsResponse {
    let api = |row: &super::api::Api| {
        ApiVersion::default()
            .with_api_key(row.key as i16)
            .with_min_version(row.advertised_min_version)
            .with_max_version(row.max_version)
    };
    ApiVersionsResponse::default().with_api_keys(apis.rows().iter().map(api).collect())
}
