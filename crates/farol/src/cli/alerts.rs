//! `farol alerts` and `farol silence`: what may be said.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use farol_event::Timestamp;
use uuid::Uuid;

use super::Target;
use super::kafka::Form;

#[derive(Debug, Args)]
pub struct Alerts {
    /// Those that are over, too
    #[arg(long, conflicts_with = "status")]
    pub all: bool,

    /// Only with one of these statuses, with commas between: pending, firing, resolved, dismissed
    #[arg(long, value_name = "STATUSES")]
    pub status: Option<String>,

    /// Only with one of these severities, with commas between: info, warning, error, critical
    #[arg(long, value_name = "SEVERITIES")]
    pub severity: Option<String>,

    /// Only about this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Only about this series: a sensor's id
    #[arg(long, value_name = "ID")]
    pub source: Option<String>,

    /// Only of this rule
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,

    #[command(flatten)]
    pub form: Form,

    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Silence {
    /// Address of the running Farol [default: the settings' http.listen]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,

    #[command(flatten)]
    pub form: Form,

    #[command(subcommand)]
    pub command: SilenceCommand,
}

#[derive(Debug, Subcommand)]
pub enum SilenceCommand {
    /// Tell nobody of certain alerts for a time
    #[command(after_help = "Examples:\n  \
        farol silence add service=shop --by ana --comment \"new disk\" --for 2h\n  \
        farol silence add 'machine_id=~\"m-.*\"' severity=warning --by ana --comment \"belt is changed\" --for 30m")]
    Add {
        /// Which alerts, by labels as Alertmanager writes them; all of them must hold. `alertname` is the rule
        #[arg(required = true, value_name = "MATCHER")]
        matchers: Vec<String>,

        /// Who silences
        #[arg(long, value_name = "NAME")]
        by: String,

        /// Why
        #[arg(long, value_name = "TEXT")]
        comment: String,

        /// For how long
        #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
        lasts: Duration,

        /// From when on (RFC 3339) [default: now]
        #[arg(long, value_name = "TIME")]
        starts: Option<Timestamp>,
    },

    /// The silences that are in force or will be
    List {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
    },

    /// End silences before their time
    Expire {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<Uuid>,

        /// Who ends them
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}
