//! `farol events`: what may be said.

use clap::Args;

use super::Target;

#[derive(Debug, Args)]
pub struct Events {
    /// Go on and print what comes, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,

    /// Only events of this type; with --follow several, separated by commas
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,

    /// Only events of this source; with --follow several, separated by commas
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,

    /// How many of those that there are, the newest; with --follow 10 unless it is said
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub limit: Option<u16>,

    /// Print each event as JSON, one a line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub target: Target,
}
