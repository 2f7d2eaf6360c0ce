//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: of topics, and of the broker, which can only be read.

mod broker;

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementallyAltered;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::NODE_ID;
use super::api::{Answer, Call};
use super::distinct::distinct;
use super::error_code::Failure;
use super::topics::{check_managed, off_thread};
use crate::error::BrokerError;
use crate::topic::{CONFIG_KEYS, ConfigKey, ConfigKind, Effect, Topic};

/// Types of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from, in the protocol's numbers.
pub(super) const SET_FOR_TOPIC: i8 = 1;
const SET_FOR_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// From this version on: types and documentation.
const DOCUMENTED_FROM: i16 = 3;

/// What a client wants to know.
#[derive(Clone, Copy)]
struct Detail {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

/// One value with all there is to say about it.
struct Described {
    name: &'static str,
    value: String,
    source: i8,
    read_only: bool,
    kind: ConfigKind,
    help: String,
    synonyms: Vec<(&'static str, String, i8)>,
}

/// Describes topics and the broker.
pub(super) async fn describe_configs(
    call: Call,
    request: DescribeConfigsRequest,
) -> Answer<DescribeConfigsResponse> {
    let detail = Detail {
        version: call.version,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let named = |resource: &DescribeConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let resources = distinct(request.resources, named);
    Answer::work(move || {
        let results = resources.map(|resource| one(&call, resource, detail));
        DescribeConfigsResponse::default().with_results(results.collect())
    })
}

fn one(call: &Call, resource: DescribeConfigsResource, detail: Detail) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default().with_resource_type(resource.resource_type);
    let described = describe(call, &resource);
    let result = result.with_resource_name(resource.resource_name);
    match described {
        Ok(described) => {
            let keys = resource.configuration_keys;
            let wanted = |name: &str| keys.as_ref().is_none_or(|keys| keys.iter().any(|key| &**key == name));
            let configs = described.into_iter().filter(|one| wanted(one.name));
            result.with_configs(configs.map(|one| one.encoded(detail)).collect())
        }
        Err(failure) => result.with_error_code(failure.code()).with_error_message(failure.text()),
    }
}

fn describe(call: &Call, resource: &DescribeConfigsResource) -> Result<Vec<Described>, Failure> {
    match resource.resource_type {
        TOPIC => {
            let topic = call.broker().topic(&resource.resource_name)?;
            Ok(CONFIG_KEYS.iter().map(|key| of_topic(&topic, key)).collect())
        }
        BROKER => {
            check_node(&resource.resource_name)?;
            Ok(broker::described(call))
        }
        other => Err(unsupported(other)),
    }
}

fn of_topic(topic: &Topic, key: &'static ConfigKey) -> Described {
    let source = source_of(topic, key);
    let value = topic.config_value(key);
    let mut synonyms = Vec::new();
    if source == SET_FOR_TOPIC {
        synonyms.push((key.name, value.clone(), SET_FOR_TOPIC));
    }
    synonyms.push((key.name, key.default.to_owned(), DEFAULT));
    let help = match key.effect {
        Effect::Honoured => key.help.to_owned(),
        Effect::Kept => format!("Kept, and makes no difference. {}", key.help),
    };
    Described { name: key.name, value, source, read_only: false, kind: key.kind, help, synonyms }
}

/// Where the value of a key comes from.
pub(super) fn source_of(topic: &Topic, key: &ConfigKey) -> i8 {
    if topic.overrides().contains_key(key.name) { SET_FOR_TOPIC } else { DEFAULT }
}

impl Described {
    fn encoded(self, detail: Detail) -> DescribeConfigsResourceResult {
        let text = StrBytes::from_string;
        let mut encoded = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_value(Some(text(self.value)))
            .with_config_source(self.source)
            .with_read_only(self.read_only);
        if detail.synonyms {
            let synonyms = self.synonyms.into_iter().map(|(name, value, source)| {
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_value(Some(text(value)))
                    .with_source(source)
            });
            encoded = encoded.with_synonyms(synonyms.collect());
        }
        if detail.version >= DOCUMENTED_FROM {
            encoded = encoded.with_config_type(self.kind as i8);
            if detail.documentation {
                encoded = encoded.with_documentation(Some(text(self.help)));
            }
        }
        encoded
    }
}

/// What to do with one key.
struct Change {
    key: String,
    operation: Operation,
}

enum Operation {
    Set(String),
    Unset,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

/// Replaces all that was set for topics.
pub(super) async fn alter_configs(call: Call, request: AlterConfigsRequest) -> Answer<AlterConfigsResponse> {
    off_thread(move || {
        let responses = request.resources.into_iter().map(|resource| {
            let altered = Altered::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name);
            let mut config = BTreeMap::new();
            for setting in resource.configs {
                if let Some(value) = setting.value {
                    config.insert(setting.name.to_string(), value.to_string());
                }
            }
            let change = |current: &mut BTreeMap<String, String>| {
                *current = config;
                Ok(())
            };
            match alter(&call, altered.resource_type, &altered.resource_name, request.validate_only, change) {
                Ok(()) => altered,
                Err(failure) => altered.with_error_code(failure.code()).with_error_message(failure.text()),
            }
        });
        AlterConfigsResponse::default().with_responses(responses.collect())
    })
}

/// Changes some of what is set for topics.
pub(super) async fn incremental_alter_configs(
    call: Call,
    request: IncrementalAlterConfigsRequest,
) -> Answer<IncrementalAlterConfigsResponse> {
    off_thread(move || {
        let responses = request.resources.into_iter().map(|resource| {
            let altered = IncrementallyAltered::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name);
            let changes = changes(resource.configs);
            let done = changes.and_then(|changes| {
                let change = |current: &mut BTreeMap<String, String>| {
                    changes.iter().try_for_each(|change| change.apply(&altered.resource_name, current))
                };
                alter(&call, altered.resource_type, &altered.resource_name, request.validate_only, change)
            });
            match done {
                Ok(()) => altered,
                Err(failure) => altered.with_error_code(failure.code()).with_error_message(failure.text()),
            }
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    })
}

fn alter(
    call: &Call,
    resource_type: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), BrokerError>,
) -> Result<(), Failure> {
    match resource_type {
        TOPIC => {
            check_managed(&call.server.settings, name)?;
            if validate_only {
                let mut config = call.broker().topic(name)?.overrides().clone();
                change(&mut config)?;
                return Ok(call.broker().check_topic_config(name, &config)?);
            }
            Ok(call.broker().change_topic_config(name, change)?)
        }
        BROKER => {
            let message = "the broker's configuration is its settings file, and can only be read";
            Err(Failure::new(ResponseError::InvalidRequest, message))
        }
        other => Err(unsupported(other)),
    }
}

fn changes(configs: Vec<AlterableConfig>) -> Result<Vec<Change>, Failure> {
    let invalid = |message: String| Failure::new(ResponseError::InvalidRequest, message);
    let change = |config: AlterableConfig| {
        let key = config.name.to_string();
        let value = || {
            let value = config.value.as_ref().map(StrBytes::to_string);
            value.ok_or_else(|| invalid(format!("`{key}` is to be changed to nothing")))
        };
        let operation = match config.config_operation {
            0 => Operation::Set(value()?),
            1 => Operation::Unset,
            2 => Operation::Append(value()?),
            3 => Operation::Subtract(value()?),
            other => return Err(invalid(format!("there is no operation {other}"))),
        };
        Ok(Change { key, operation })
    };
    configs.into_iter().map(change).collect()
}

impl Change {
    fn apply(&self, topic: &str, config: &mut BTreeMap<String, String>) -> Result<(), BrokerError> {
        let key = ConfigKey::find(&self.key);
        let is_list = key.is_some_and(|key| key.kind == ConfigKind::List);
        if matches!(self.operation, Operation::Append(_) | Operation::Subtract(_)) && !is_list {
            let problem = format!("`{}` is no list that could be added to or taken from", self.key);
            return Err(BrokerError::InvalidTopicConfig { topic: topic.to_owned(), problem });
        }
        let current = config.get(&self.key).cloned();
        let current = current.unwrap_or_else(|| key.map_or("", |key| key.default).to_owned());
        let items = |text: &str| -> Vec<String> {
            text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        match &self.operation {
            Operation::Set(value) => {
                config.insert(self.key.clone(), value.clone());
            }
            Operation::Unset => {
                config.remove(&self.key);
            }
            Operation::Append(more) => {
                let mut all = items(&current);
                all.extend(items(more).into_iter().filter(|item| !items(&current).contains(item)));
                config.insert(self.key.clone(), all.join(","));
            }
            Operation::Subtract(less) => {
                let mut all = items(&current);
                all.retain(|item| !items(less).contains(item));
                config.insert(self.key.clone(), all.join(","));
            }
        }
        Ok(())
    }
}

/// Whether a name is the one broker's; an empty one stands for all of them.
fn check_node(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name == NODE_ID.to_string() {
        return Ok(());
    }
    let message = format!("there is no broker {name}; there is {NODE_ID}");
    Err(Failure::new(ResponseError::InvalidRequest, message))
}

fn unsupported(resource_type: i8) -> Failure {
    let message = format!("resources of type {resource_type} have no configuration here");
    Failure::new(ResponseError::InvalidRequest, message)
}
