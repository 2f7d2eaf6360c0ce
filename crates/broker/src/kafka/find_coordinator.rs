//! FindCoordinator: the one broker coordinates every group and every transaction.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::NODE_ID;
use super::api::{Answer, Call};
use super::metadata::advertised;

/// From this version on, several keys are asked for at once.
const SEVERAL_FROM: i16 = 4;
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;
/// No node.
const NOBODY: i32 = -1;

/// Answers with this broker for each key.
pub(super) async fn find_coordinator(
    call: Call,
    request: FindCoordinatorRequest,
) -> Answer<FindCoordinatorResponse> {
    let (host, port) = advertised(&call);
    let knows = matches!(request.key_type, GROUP_KEY | TRANSACTION_KEY);
    let problem =
        || Some(StrBytes::from_string(format!("there are no coordinators of type {}", request.key_type)));
    if call.version < SEVERAL_FROM {
        let response = FindCoordinatorResponse::default();
        if !knows {
            return response
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_error_message(problem().filter(|_| call.version >= 1))
                .with_node_id(BrokerId(NOBODY))
                .with_port(NOBODY)
                .into();
        }
        return response.with_node_id(BrokerId(NODE_ID)).with_host(host).with_port(port).into();
    }
    let coordinator = |key: StrBytes| {
        let coordinator = Coordinator::default().with_key(key);
        if knows {
            coordinator.with_node_id(BrokerId(NODE_ID)).with_host(host.clone()).with_port(port)
        } else {
            coordinator
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_error_message(problem())
                .with_node_id(BrokerId(NOBODY))
                .with_port(NOBODY)
        }
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
        .into()
}
