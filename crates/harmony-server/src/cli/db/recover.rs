//! `harmony db unsafe-recover`: for operators whose majority is gone for good, and who would rather lose some writes than all.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use harmony_types::Revision;

use crate::client::ClientError;
use crate::config::{Config, Options};
use crate::serve::recover::{Found, Made, REPORT, Survivor};
use crate::serve::restore::Changes;

#[derive(Args, Debug)]
pub(super) struct RecoverArgs {
    /// The data directory of the member that is left; no process may use it
    dir: PathBuf,
    /// Directory to make for the new member; the old one stays
    #[arg(long)]
    data_dir: PathBuf,
    /// Text that keeps the new cluster apart from the lost one; give one that was never used
    #[arg(long)]
    initial_cluster_token: String,
    /// Name of the new member
    #[arg(long, default_value = "default")]
    name: String,
    /// Where other members will reach it [default: http://localhost:2380]
    #[arg(long)]
    initial_advertise_peer_urls: Option<String>,
    /// Add so much to the revision, so that clients of the lost cluster meet no revision twice
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "mark_compacted")]
    bump_revision: u64,
    /// Give up all history, so that watches of the lost cluster's clients end and begin again
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
    /// Do it: writes that were acknowledged may be lost, and the other members must never run again
    #[arg(long)]
    i_accept_data_loss: bool,
}

/// Says what would be kept and lost, and does it when told so in words.
pub(super) fn run(args: RecoverArgs, out: &mut dyn Write) -> Result<(), ClientError> {
    let advertised = args.initial_advertise_peer_urls.clone();
    let options = Options {
        name: Some(args.name),
        data_dir: Some(args.data_dir),
        initial_cluster_token: Some(args.initial_cluster_token),
        initial_advertise_peer_urls: args.initial_advertise_peer_urls,
        ..Options::default()
    };
    let config = Config::new(options).map_err(|error| ClientError::Usage(error.mistakes.join("; ")))?;
    let failed = |error: crate::serve::restore::RestoreError| ClientError::Failed(error.to_string());
    let survivor = Survivor::open(&args.dir).map_err(failed)?;
    let made = Made::of(&config, &survivor.found).map_err(failed)?;
    let plan = format!("{}\n{}", args.dir.display(), plan(&survivor.found));
    if !args.i_accept_data_loss {
        out.write_all(plan.as_bytes()).map_err(ClientError::output)?;
        return Err(ClientError::Failed(
            "nothing was made; when the other members are gone for good, add --i-accept-data-loss".to_owned(),
        ));
    }
    let changes = Changes { bump_revision: args.bump_revision, mark_compacted: args.mark_compacted };
    let mut report = String::new();
    survivor
        .recover(&config, changes, |revision| {
            report = plan + &result(&config, made, revision, advertised.as_deref());
            report.clone()
        })
        .map_err(failed)?;
    let written = config.data_dir.join(REPORT);
    writeln!(out, "{report}  report      {}", written.display()).map_err(ClientError::output)
}

/// What is there, and what becomes of it.
fn plan(found: &Found) -> String {
    let Found { cluster, member, membership, committed, revision, last, acknowledged } = found;
    let mut text = String::new();
    let mut line = |name: &str, words: std::fmt::Arguments<'_>| {
        // Writing into memory does not fail.
        let _infallible = writeln!(text, "  {name:<11} {words}");
    };
    line("was", format_args!("member {member} of cluster {cluster}"));
    for voter in &membership.voters {
        let member = membership.members.get(voter);
        let name = member.map_or("", |member| member.name.as_str());
        line("", format_args!("voter {voter} {name}"));
    }
    line(
        "has",
        format_args!(
            "index {} of term {}, revision {revision}, known as committed",
            committed.index, committed.term
        ),
    );
    if committed.index < *last {
        line(
            "takes",
            format_args!(
                "the commands of entries {} to {last} as well: nobody is left to say whether they were committed",
                committed.index.next()
            ),
        );
    }
    if last < acknowledged {
        let first = last.next();
        line(
            "loses",
            format_args!("entries {first} to {acknowledged}, certainly: other members had acknowledged them"),
        );
    }
    line("loses", format_args!("what the other members committed without this one: nobody can count it"));
    text
}

/// What was made, and how to start it.
fn result(config: &Config, made: Made, revision: Revision, advertised: Option<&str>) -> String {
    let Config { name, token, data_dir, .. } = config;
    let dir = data_dir.display();
    let advertised = advertised
        // One that is alone listens for those who are to join it only when it is told to.
        .map(|urls| format!(" --initial-advertise-peer-urls {urls} --listen-peer-urls {urls}"))
        .unwrap_or_default();
    format!(
        "  made        member {} of cluster {}, alone, at revision {revision}, in {dir}\n  \
         start       harmony serve --name {name} --data-dir {dir} --initial-cluster-token {token}{advertised}\n  \
         then        add members one by one; start no other member of the lost cluster again\n",
        made.member, made.cluster
    )
}
