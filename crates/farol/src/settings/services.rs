//! Watched services among the settings: `[[services]]`, and how far the checks of others may reach.

use std::borrow::Cow;

use farol_registry::MAX_SERVICES;
use farol_registry::Reach;
use farol_registry::definition::NamedService;

use super::value::{RawValue, SettingValue};

/// The services of the settings, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services(pub Vec<NamedService>);

impl SettingValue for Services {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        let tables = match raw {
            RawValue::List(items) => items.iter().map(table).collect::<Option<Vec<_>>>(),
            // From the environment: as it would stand in the file.
            RawValue::Bare(text) => {
                let file: Option<toml::Table> = toml::from_str(&format!("services = {text}")).ok();
                let list = file.and_then(|mut file| match file.remove("services") {
                    Some(toml::Value::Array(items)) => Some(items),
                    _ => None,
                });
                list.and_then(|items| items.into_iter().map(into_table).collect())
            }
            _ => None,
        };
        let tables = tables.ok_or(
            "a list of tables, for example [{ name = \"shop\", checks = [{ http = \"http://127.0.0.1:8080/health\" }] }]",
        )?;
        if tables.len() > MAX_SERVICES {
            return Err(format!("a list of at most {MAX_SERVICES} services").into());
        }
        let mut services: Vec<NamedService> = Vec::with_capacity(tables.len());
        for (index, table) in tables.into_iter().enumerate() {
            let refuse = |problem: String| format!("right: in the {}. of them, {problem}", index + 1);
            let service: NamedService =
                table.try_into().map_err(|error: toml::de::Error| refuse(error.message().to_owned()))?;
            if services.iter().any(|other| other.name == service.name) {
                return Err(refuse(format!("there is another service `{}`", service.name)).into());
            }
            services.push(service);
        }
        Ok(Self(services))
    }

    fn to_toml(&self) -> String {
        let services = self.0.iter().map(|service| {
            let mut table = toml::Table::new();
            table.insert("name".to_owned(), service.name.to_string().into());
            if let Ok(toml::Value::Table(definition)) = toml::Value::try_from(&service.definition) {
                table.extend(definition);
            }
            toml::Value::Table(table)
        });
        toml::Value::Array(services.collect()).to_string()
    }
}

fn table(raw: &RawValue) -> Option<toml::Table> {
    match raw {
        RawValue::Table(table) => Some(table.clone()),
        _ => None,
    }
}

fn into_table(value: toml::Value) -> Option<toml::Table> {
    match value {
        toml::Value::Table(table) => Some(table),
        _ => None,
    }
}

/// How far checks may reach that come through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiTargets {
    /// There may be none.
    None,
    /// To this machine's loopback.
    Loopback,
    /// Anywhere.
    Any,
}

impl ApiTargets {
    /// As the catalogue of services wants it.
    pub fn reach(self) -> Option<Reach> {
        match self {
            Self::None => None,
            Self::Loopback => Some(Reach::Loopback),
            Self::Any => Some(Reach::Anywhere),
        }
    }
}

impl SettingValue for ApiTargets {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) => match text.as_str() {
                "none" => Ok(Self::None),
                "loopback" => Ok(Self::Loopback),
                "any" => Ok(Self::Any),
                _ => Err("\"none\", \"loopback\" or \"any\"".into()),
            },
            _ => Err("\"none\", \"loopback\" or \"any\"".into()),
        }
    }

    fn to_toml(&self) -> String {
        let word = match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Any => "any",
        };
        format!("\"{word}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Services, String> {
        Services::from_raw(&RawValue::Bare(toml.to_owned())).map_err(|error| error.into_owned())
    }

    #[test]
    fn services_are_shown_as_they_would_be_written() {
        let services = read(
            r#"[{ name = "shop", labels = { team = "a" }, checks = [{ http = "http://127.0.0.1:1/", down_after = 2 }, { ttl = "30s" }] }, { name = "bare" }]"#,
        )
        .unwrap();
        assert_eq!(services.0.len(), 2);
        assert_eq!(read(&services.to_toml()).unwrap(), services);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        for (toml, expected) in [
            ("3", "a list of tables"),
            ("[3]", "a list of tables"),
            ("[{ name = \"a\" }, { name = \"a\" }]", "in the 2. of them, there is another service `a`"),
            (
                "[{ name = \"a\", checks = [{ tcp = \"x\" }] }]",
                "in the 1. of them, service `a`: check 1: tcp:",
            ),
            ("[{ nam = \"a\" }]", "unknown field `nam`"),
            (
                "[{ name = \"a\", checks = [{ http = \"http://a/\", intervall = \"1s\" }] }]",
                "unknown field `intervall`",
            ),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
        }
    }
}
