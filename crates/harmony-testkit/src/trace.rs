//! A run of a cluster as a picture: one page with a space-time diagram, for whoever looks for the reason of a failure.
//!
//! [`Trace`] is plain data; [`Trace::to_html`] writes a page that needs nothing else: nodes and clients are lanes, time goes to
//! the right, messages are slanted lines, terms are colours. The wheel zooms, dragging moves, pointing at something tells what
//! it is.

use std::fmt::Write as _;

use harmony_types::{LogIndex, NodeId, Term};

use crate::history::{History, Moment};

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trace {
    /// For the page's head: the seed and the failure, say.
    pub title: String,
    /// The lanes, from the top.
    pub nodes: Vec<NodeId>,
    /// In any order.
    pub messages: Vec<TraceMessage>,
    /// In any order.
    pub marks: Vec<Mark>,
    /// What concerns all, in words: faults, say.
    pub events: Vec<(Moment, String)>,
    /// What clients asked, in lanes of their own.
    pub history: History,
}

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceMessage {
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// When it was sent.
    pub sent: Moment,
    /// When it came; `None`: never.
    pub received: Option<Moment>,
    /// Its term.
    pub term: Term,
    /// What it is, in words.
    pub text: String,
}

/// Something that happened at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub node: NodeId,
    /// When.
    pub at: Moment,
    /// What.
    pub kind: MarkKind,
}

/// What can happen at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// It is in a new term, and leads in it or not.
    Term {
        /// The term.
        term: Term,
        /// Whether it leads.
        is_leader: bool,
    },
    /// It knows that the log is committed up to here.
    Commit(LogIndex),
    /// It is gone.
    Crash,
    /// It is there again.
    Start,
    /// Anything else, in words.
    Note(String),
}

/// The page around the data.
const PAGE: &str = include_str!("trace/page.html");

/// Where the data goes in the page.
const PLACE: &str = "/*DATA*/null";

impl Trace {
    /// A page that shows the trace.
    #[must_use]
    pub fn to_html(&self) -> String {
        PAGE.replacen(PLACE, &self.to_json(), 1)
    }

    fn to_json(&self) -> String {
        let nodes = list(self.nodes.iter().map(|node| text(&node.to_string())));
        let messages = list(self.messages.iter().map(|message| {
            let received = message.received.map_or_else(|| "null".to_owned(), |at| at.to_string());
            let (from, to) = (text(&message.from.to_string()), text(&message.to.to_string()));
            let words = text(&message.text);
            format!("[{from},{to},{},{received},{},{words}]", message.sent, message.term)
        }));
        let marks = list(self.marks.iter().map(|mark| {
            let (kind, number, words) = match &mark.kind {
                MarkKind::Term { term, is_leader: true } => ("leader", term.0, ""),
                MarkKind::Term { term, is_leader: false } => ("term", term.0, ""),
                MarkKind::Commit(index) => ("commit", index.0, ""),
                MarkKind::Crash => ("crash", 0, ""),
                MarkKind::Start => ("start", 0, ""),
                MarkKind::Note(words) => ("note", 0, words.as_str()),
            };
            let node = text(&mark.node.to_string());
            format!("[{node},{},\"{kind}\",{number},{}]", mark.at, text(words))
        }));
        let events = list(self.events.iter().map(|(at, words)| format!("[{at},{}]", text(words))));
        let calls = list(self.history.operations.iter().map(|operation| {
            let returned = operation.returned.map_or_else(|| "null".to_owned(), |at| at.to_string());
            let is_unknown = operation.is_unknown();
            let words = text(&operation.to_string());
            format!("[{},{},{returned},{is_unknown},{words}]", operation.client.0, operation.called)
        }));
        let title = text(&self.title);
        format!(
            "{{\"title\":{title},\n\"nodes\":{nodes},\n\"messages\":{messages},\n\"marks\":{marks},\n\"events\":{events},\n\"calls\":{calls}}}"
        )
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(",\n"))
}

/// A JSON string that may stand in a script: no `<` that could end it.
fn text(words: &str) -> String {
    let mut json = String::from('"');
    for letter in words.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '<' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            plain => json.push(plain),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Operation, put};

    fn node(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn the_page_holds_all_data_and_needs_nothing_else() {
        let mut trace = Trace {
            title: "seed </script> \"7\"".into(),
            nodes: vec![node(1), node(10)],
            ..Trace::default()
        };
        trace.messages.push(TraceMessage {
            from: node(1),
            to: node(10),
            sent: Moment(5),
            received: None,
            term: Term(3),
            text: "append\n\u{1}".into(),
        });
        let mark = |at, kind| Mark { node: node(1), at: Moment(at), kind };
        trace.marks.push(mark(4, MarkKind::Term { term: Term(3), is_leader: true }));
        trace.marks.push(mark(6, MarkKind::Commit(LogIndex(9))));
        trace.marks.push(mark(7, MarkKind::Crash));
        trace.events.push((Moment(3), "cut 1 10".into()));
        trace.history.operations.push(Operation::sent(ClientId(2), Moment(1), put("k", "<v>")));
        let page = trace.to_html();
        for part in [
            r#""title":"seed \u003c/script> \"7\"""#,
            r#""nodes":["1","#,
            r#"["1","a",5,null,3,"append\u000a\u0001"]"#,
            r#"["1",4,"leader",3,""]"#,
            r#"["1",6,"commit",9,""]"#,
            r#"["1",7,"crash",0,""]"#,
            r#""events":[[3,"cut 1 10"]]"#,
            r#"[2,1,null,true,"op c2 n? 1.. put \"k\" \"\u003cv>\" -> unknown"]"#,
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains(PLACE));
    }
}
