//! Who a member is, and who it begins with: named by the flags of a new cluster, told by a running one, or known from the
//! data directory.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use harmony_node::{Roster, ask_roster, member_id};
use harmony_types::config::Identity;
use harmony_types::{Clock, Member, Membership, NodeId};
use harmony_wal::OsFileSystem;

use super::data_dir::DataDir;
use super::{Ids, ServeError, first_members, refusal, strings};
use crate::config::Config;

/// How often the members of a running cluster are asked.
const TRIES: usize = 10;

/// Rest before they are asked again: the one that answers may not have heard yet that this member was added.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a member with data waits for word that its cluster is the one that the flags name. Members that run answer at once.
const ANSWER: Duration = Duration::from_secs(2);

/// Why a member of a running cluster did not find its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is nobody to ask.
    #[error(
        "--initial-cluster-state is \"existing\", the data directory holds no member, and --initial-cluster names no other \
         member to ask: name those of the running cluster, or use \"new\" for a new cluster"
    )]
    Alone,
    /// Nobody answers.
    #[error(
        "no member of the running cluster says who belongs to it: {tried}; check the URLs in --initial-cluster, and that \
         those members run"
    )]
    NoAnswer {
        /// Whom it asked, and what happened.
        tried: String,
    },
    /// Nobody added this member.
    #[error(
        "cluster {cluster} does not know a member at {urls}, only {known}: add it first, with `harmony members add NAME \
         --peer-urls={urls}`, or correct --initial-advertise-peer-urls; a member that was removed has to be added again"
    )]
    Unknown {
        /// The cluster.
        cluster: String,
        /// The URLs of this member.
        urls: String,
        /// Its members' URLs.
        known: String,
    },
    /// The URLs fit in part.
    #[error(
        "cluster {cluster} knows member {id} at {known}, which is not the same as {urls} in --initial-advertise-peer-urls and \
         --initial-cluster: make them the same"
    )]
    Urls {
        /// The cluster.
        cluster: String,
        /// The member.
        id: NodeId,
        /// Where the cluster expects it.
        known: String,
        /// Where it says it is.
        urls: String,
    },
    /// It has run before, elsewhere or here.
    #[error(
        "member {id} at {urls} has run before under the name {name:?}, and its data is not here: start it with its own \
         --data-dir; if that is lost, remove the member and add it again, under a new id"
    )]
    Started {
        /// The member.
        id: NodeId,
        /// Its URLs.
        urls: String,
        /// What it told the cluster.
        name: String,
    },
    /// The directory is of another cluster than the flags speak of.
    #[error(
        "data directory {path} belongs to cluster {held}, but the members that --initial-cluster names belong to cluster \
         {cluster}: choose another --data-dir for a member that joins that one, or correct --initial-cluster"
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// Its cluster.
        held: String,
        /// The running cluster.
        cluster: String,
    },
    /// The directory was begun for a member that is not the one the cluster expects now.
    #[error(
        "data directory {path} was begun for member {begun} of cluster {begun_cluster}, but cluster {cluster} expects \
         member {member} at {urls}: the directory holds no data yet, so remove it, or choose another --data-dir"
    )]
    Begun {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        begun: NodeId,
        /// Of which cluster.
        begun_cluster: String,
        /// The running cluster.
        cluster: String,
        /// Whom it expects.
        member: NodeId,
        /// Where.
        urls: String,
    },
}

/// A member's place in its cluster.
pub(super) struct Place {
    pub(super) ids: Ids,
    /// As a running cluster told them.
    told: Option<Membership>,
}

impl Place {
    /// Finds it. The flags name it in a new cluster; in a running one the data directory does, or, where that is empty, the
    /// other members.
    ///
    /// # Errors
    /// [`JoinError`], or a log that cannot be read.
    pub(super) fn of(config: &Config, data_dir: &DataDir, clock: &dyn Clock) -> Result<Self, ServeError> {
        if !config.existing {
            return Ok(Self { ids: Ids::of(config), told: None });
        }
        let found = harmony_wal::identity_of(&*OsFileSystem::new(), &data_dir.wal())
            .map_err(|source| refusal::of(data_dir.path(), source.into()))?;
        match found {
            Some(Identity { cluster, node: Some(member) }) => {
                let ids = Ids { cluster, member };
                check_cluster(config, ids, clock)?;
                Ok(Self { ids, told: None })
            }
            _ => Ok(Self::ask(config, clock)?),
        }
    }

    /// The members that an empty member begins with.
    ///
    /// # Errors
    /// [`JoinError`]. One that ended between its first two steps asks again.
    pub(super) fn first_members(self, config: &Config, clock: &dyn Clock) -> Result<Membership, JoinError> {
        match self.told {
            None if !config.existing => Ok(first_members(config)),
            Some(told) => Ok(told),
            None => {
                let place = Self::ask(config, clock)?;
                if place.ids == self.ids {
                    return Ok(place.told.unwrap_or_default());
                }
                // It was removed meanwhile, and perhaps added again, or the directory is of another cluster.
                Err(JoinError::Begun {
                    path: config.data_dir.clone(),
                    begun: self.ids.member,
                    begun_cluster: self.ids.cluster.to_string(),
                    cluster: place.ids.cluster.to_string(),
                    member: place.ids.member,
                    urls: strings(&config.own().peer_urls).join(","),
                })
            }
        }
    }

    /// Who belongs to this member's cluster, as another member says, or else as the flags of a new cluster do; `None` when nobody
    /// knows. For a member whose own knowledge is damaged.
    pub(super) fn members_now(&self, config: &Config, clock: &dyn Clock) -> Option<Membership> {
        let (answers, until) = ask_all(config, self.ids, clock);
        while let Ok(roster) = answers.recv_timeout(until.saturating_sub(clock.now())) {
            if roster.cluster == self.ids.cluster && roster.membership != Membership::default() {
                return Some(roster.membership);
            }
        }
        (!config.existing).then(|| first_members(config))
    }

    /// Asks the other members that `--initial-cluster` names, until one of them knows this one.
    fn ask(config: &Config, clock: &dyn Clock) -> Result<Self, JoinError> {
        let own = strings(&config.own().peer_urls);
        let others = other_urls(config);
        let mut last = JoinError::Alone;
        for attempt in 0..if others.is_empty() { 0 } else { TRIES } {
            if 0 < attempt {
                clock.sleep(PAUSE);
            }
            let mut tried = Vec::new();
            for url in &others {
                match ask_roster(url, member_id(&own, &config.token), config.peer_tls.as_ref()) {
                    Ok(roster) => match find(&roster, &own) {
                        Ok(place) => return Ok(place),
                        Err(error @ JoinError::Unknown { .. }) => last = error,
                        Err(error) => return Err(error),
                    },
                    Err(error) => tried.push(error.to_string()),
                }
            }
            if tried.len() == others.len() {
                last = JoinError::NoAnswer { tried: tried.join("; ") };
            }
        }
        Err(last)
    }
}

/// Asks all others that `--initial-cluster` names at once: their answers, and how long to wait for them.
fn ask_all(config: &Config, ids: Ids, clock: &dyn Clock) -> (Receiver<Roster>, Duration) {
    let (sender, answers) = mpsc::channel();
    for url in other_urls(config) {
        let (sender, tls) = (sender.clone(), config.peer_tls.clone());
        let ask = move || {
            // Whoever is not there says nothing, and who comes too late is not heard.
            if let Ok(roster) = ask_roster(&url, ids.member, tls.as_ref()) {
                let _unheard = sender.send(roster);
            }
        };
        if let Err(error) = thread::Builder::new().name("harmony-ask".to_owned()).spawn(ask) {
            tracing::debug!(%error, "one member is not asked which cluster it belongs to");
        }
    }
    (answers, clock.now() + ANSWER)
}

/// Nobody has to be there: a member starts from its own data, and one whose cluster is down as a whole must.
///
/// # Errors
/// [`JoinError::OtherCluster`]: those who answer in time are all of another cluster than the directory.
fn check_cluster(config: &Config, ids: Ids, clock: &dyn Clock) -> Result<(), JoinError> {
    let (answers, until) = ask_all(config, ids, clock);
    let mut other = None;
    while let Ok(Roster { cluster, .. }) = answers.recv_timeout(until.saturating_sub(clock.now())) {
        if cluster == ids.cluster {
            return Ok(());
        }
        other = Some(cluster);
    }
    other.map_or(Ok(()), |cluster| {
        Err(JoinError::OtherCluster {
            path: config.data_dir.clone(),
            held: ids.cluster.to_string(),
            cluster: cluster.to_string(),
        })
    })
}

/// Peer URLs of the others that `--initial-cluster` names.
fn other_urls(config: &Config) -> Vec<String> {
    let others = config.cluster.iter().filter(|member| member.name != config.name);
    others.flat_map(|member| strings(&member.peer_urls)).collect()
}

/// This member's place among those of a running cluster.
fn find(roster: &Roster, own: &[String]) -> Result<Place, JoinError> {
    let members = &roster.membership.members;
    let (cluster, urls) = (roster.cluster.to_string(), own.join(","));
    let sorted = |member: &Member| {
        let mut urls = member.peer_urls.clone();
        urls.sort_unstable();
        urls
    };
    let Some(member) = members.values().find(|member| member.peer_urls.iter().any(|url| own.contains(url)))
    else {
        let known: Vec<String> = members.values().flat_map(|member| member.peer_urls.clone()).collect();
        return Err(JoinError::Unknown { cluster, urls, known: known.join(", ") });
    };
    let mut own = own.to_vec();
    own.sort_unstable();
    if sorted(member) != own {
        return Err(JoinError::Urls { cluster, id: member.id, known: sorted(member).join(","), urls });
    }
    if !member.name.is_empty() {
        return Err(JoinError::Started { id: member.id, urls, name: member.name.clone() });
    }
    let ids = Ids { cluster: roster.cluster, member: member.id };
    Ok(Place { ids, told: Some(before(&roster.membership)) })
}

/// A membership to begin with for one who will be told all changes from the first, and only then knows who belongs to it now.
///
/// Nobody knows any more who the first members were. Each of them is a member still, or was removed, so all these are taken for
/// voters; a change in the log says of every other of them when it came, and of each that is gone, when it went. At no place
/// in the log are voters missing that were there, so no change takes the last one away. A snapshot brings the true list at once.
fn before(now: &Membership) -> Membership {
    Membership {
        members: now.members.clone(),
        voters: now.voters.union(&now.voters_outgoing).chain(&now.removed).copied().collect(),
        learners: now.learners.clone(),
        joining: now.joining.clone(),
        ..Membership::default()
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::{ClusterId, Role};

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn member(number: u64, name: &str, urls: &[&str], role: Role) -> Member {
        let peer_urls = urls.iter().map(ToString::to_string).collect();
        Member { id: id(number), name: name.to_owned(), peer_urls, client_urls: Vec::new(), role }
    }

    fn roster() -> Roster {
        let mut membership = Membership::from_members([
            member(1, "one", &["http://a:1"], Role::Voter),
            member(2, "", &["http://b:1", "http://b:2"], Role::Learner),
        ]);
        membership.removed.insert(id(9));
        Roster { cluster: ClusterId(7), membership }
    }

    fn refused(urls: &[&str]) -> String {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        find(&roster(), &urls).err().unwrap().to_string()
    }

    #[test]
    fn a_member_takes_the_id_that_the_cluster_gave_it() {
        let place = find(&roster(), &["http://b:2".to_owned(), "http://b:1".to_owned()]).unwrap();
        assert_eq!((place.ids.cluster, place.ids.member), (ClusterId(7), id(2)));
        let told = place.told.unwrap();
        assert_eq!(told.check(), Ok(()));
        assert_eq!(told.voters, [id(1), id(9)].into(), "who was removed may have been among the first");
        assert_eq!(told.learners, [id(2)].into());
    }

    #[test]
    fn a_member_without_a_place_is_told_why() {
        let unknown = refused(&["http://c:1"]);
        assert!(
            unknown.contains("cluster 7 does not know a member at http://c:1, only http://a:1"),
            "{unknown}"
        );
        let part = refused(&["http://b:1"]);
        assert!(
            part.contains("knows member 2 at http://b:1,http://b:2, which is not the same as http://b:1"),
            "{part}"
        );
        let started = refused(&["http://a:1"]);
        assert!(
            started.contains("member 1 at http://a:1 has run before under the name \"one\""),
            "{started}"
        );
    }
}
