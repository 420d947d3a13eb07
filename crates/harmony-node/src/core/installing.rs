//! What a member still says while it installs a snapshot.
//!
//! Raft itself hears nothing then: between a ready state and its `advance` it must not be touched, and an installation
//! takes as long as the disk. Without a word the leader would take the member for dead, and lose its own quorum when
//! another is away. So heartbeats are answered beside Raft, in its words, which is safe for what an answer means: that this
//! member knows of no newer term than the leader's. It cannot learn of one meanwhile, and gives no vote; and its term is on
//! the disk. What a heartbeat would do here, move the commit index, the first one behind the installation does.

use harmony_types::{LogIndex, Message, MessageType, NodeId, PeerMessage, Storage, Term};

use super::Core;
use super::event::{Actions, Inbox};

impl<S: Storage> Core<S> {
    /// Answers the leader's heartbeats and takes them out of `inbox`; of appends, keeps the newest. A leader that hears from
    /// this member tries it with the same append again and again, which must not pile up.
    pub(super) fn stay_in_touch(&mut self, inbox: &mut Inbox<S::Outcome>, actions: &mut Actions<S::Outcome>) {
        let view = self.raft.view();
        if self.handler.saved_term() == view.term
            && let Some(leader) = view.leader
        {
            inbox.peers.retain(|(from, message)| match message {
                PeerMessage::Raft(message) if is_heartbeat(message, *from, leader, view.term) => {
                    actions.send(leader, PeerMessage::Raft(Box::new(answer_to(message))));
                    false
                }
                _ => true,
            });
        }
        let appends = inbox.peers.iter().filter(|(_, message)| is_append(message)).count();
        if appends != 0 {
            self.backlog.peers.retain(|(_, message)| !is_append(message));
            let mut older = appends - 1;
            inbox.peers.retain(|(_, message)| {
                let drop = is_append(message) && older != 0;
                older -= usize::from(drop);
                !drop
            });
        }
    }
}

fn is_heartbeat(message: &Message, from: NodeId, leader: NodeId, term: Term) -> bool {
    message.message_type == MessageType::Heartbeat
        && (message.from, from) == (leader, leader)
        && message.term == term
}

fn is_append(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(message) if message.message_type == MessageType::Append)
}

/// The context says which round of reads the heartbeat was for.
fn answer_to(heartbeat: &Message) -> Message {
    Message {
        message_type: MessageType::HeartbeatResponse,
        to: heartbeat.from,
        from: heartbeat.to,
        commit: LogIndex::ZERO,
        commit_term: Term::default(),
        ..heartbeat.clone()
    }
}
