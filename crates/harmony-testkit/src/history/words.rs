//! Reads the text form of a history: words, quoted bytes and brackets, then lines.

use std::collections::BTreeMap;
use std::str::FromStr;

use bytes::Bytes;
use harmony_types::lease::{LeaseGrant, LeaseRevoke};
use harmony_types::txn::{
    CompareResult, CompareTarget, DeleteRange, DeleteRangeOutcome, OpOutcome, OpOutcomeKind, Put, PutOutcome,
    Range, RangeOutcome, TxnOpKind, TxnOutcome,
};
use harmony_types::{
    Compare, Event, EventType, KeyRange, KeyValue, LeaseId, NodeId, Refusal, Revision, Txn, TxnOp,
};

use super::{
    Answer, ClientId, History, Moment, Operation, OperationOutcome, Reply, Request, Watch, WatchMessage,
    WatchRequest, WatchResponse,
};

/// A text that is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ParseError {}

/// Reads what `{history}` wrote.
///
/// # Errors
/// The first line that is none, and why.
pub fn parse(text: &str) -> Result<History, ParseError> {
    let mut history = History::default();
    for (number, line) in text.lines().enumerate() {
        let at = |reason| ParseError { line: number + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = Words { rest: split(line).map_err(at)?, depth: 0 };
        read_line(&mut words, &mut history).and_then(|()| words.end()).map_err(at)?;
    }
    Ok(history)
}

fn read_line(words: &mut Words, history: &mut History) -> Parsed<()> {
    match words.word()?.as_str() {
        "op" => history.operations.push(operation(words)?),
        "watch" => history.watches.push(watch(words)?),
        "at" => {
            let response = response(words)?;
            let watch = history.watches.last_mut().ok_or("a response stands before any watch")?;
            watch.responses.push(response);
        }
        other => return Err(format!("{other:?} begins no line: op, watch and at do")),
    }
    Ok(())
}

type Parsed<T> = Result<T, String>;

/// A piece of a line.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Bytes(Bytes),
    /// One of `[`, `]`, `;`.
    Sign(char),
}

fn split(line: &str) -> Parsed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&next) = chars.peek() {
        match next {
            ' ' => {
                chars.next();
            }
            '[' | ']' | ';' => {
                chars.next();
                tokens.push(Token::Sign(next));
            }
            '"' => {
                chars.next();
                tokens.push(Token::Bytes(quoted(&mut chars)?));
            }
            _ => {
                let mut word = String::new();
                while let Some(next) = chars.next_if(|next| !" []\";".contains(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    // Read from its end.
    tokens.reverse();
    Ok(tokens)
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Parsed<Bytes> {
    let mut bytes = Vec::new();
    loop {
        match chars.next().ok_or("a quote is not closed")? {
            '"' => return Ok(bytes.into()),
            '\\' => bytes.push(escaped(chars)?),
            plain => bytes.push(u8::try_from(plain).map_err(|_| format!("{plain:?} is to be escaped"))?),
        }
    }
}

fn escaped(chars: &mut impl Iterator<Item = char>) -> Parsed<u8> {
    Ok(match chars.next().ok_or("an escape is not complete")? {
        't' => b'\t',
        'n' => b'\n',
        'r' => b'\r',
        'x' => {
            let digits: String = chars.take(2).collect();
            u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no byte"))?
        }
        same @ ('"' | '\\' | '\'') => u8::try_from(same).map_err(|error| error.to_string())?,
        other => return Err(format!("\\{other} is no escape")),
    })
}

/// What is left of a line, turned round.
struct Words {
    rest: Vec<Token>,
    /// Transactions around the one that is read.
    depth: u8,
}

/// Transactions within transactions in a text; no store takes as many.
const DEPTH_MAX: u8 = 16;

/// Numbers and flags, by name.
struct Fields(BTreeMap<String, i64>);

impl Fields {
    /// The value of a field that may be there; 0 if it is not, 1 for a flag.
    fn take(&mut self, name: &str) -> i64 {
        self.0.remove(name).unwrap_or(0)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.take(name) != 0
    }

    fn revision(&mut self, name: &str) -> Parsed<Option<Revision>> {
        let read = |number| u64::try_from(number).map(Revision).map_err(|_| format!("{name} is below 0"));
        self.0.remove(name).map(read).transpose()
    }

    /// Whatever is left was not asked for.
    fn end(self) -> Parsed<()> {
        self.0.keys().next().map_or(Ok(()), |name| Err(format!("{name} does not belong here")))
    }
}

impl Words {
    fn next(&mut self) -> Parsed<Token> {
        self.rest.pop().ok_or_else(|| "the line ends too early".into())
    }

    fn word(&mut self) -> Parsed<String> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => Err(format!("a word is missing before {other:?}")),
        }
    }

    fn bytes(&mut self) -> Parsed<Bytes> {
        match self.next()? {
            Token::Bytes(bytes) => Ok(bytes),
            other => Err(format!("quoted bytes are missing before {other:?}")),
        }
    }

    fn number<T: FromStr>(&mut self) -> Parsed<T> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    }

    fn expect(&mut self, wanted: &str) -> Parsed<()> {
        let word = self.word()?;
        if word == wanted { Ok(()) } else { Err(format!("{wanted:?} is missing before {word:?}")) }
    }

    /// A number or a name behind a letter, as `c1` and `n2`.
    fn behind(&mut self, letter: char) -> Parsed<String> {
        let word = self.word()?;
        let found = word.strip_prefix(letter).map(str::to_owned);
        found.ok_or_else(|| format!("{letter} is missing before {word:?}"))
    }

    /// Words up to the next bracket or arrow that name numbers and flags.
    fn fields(&mut self) -> Parsed<Fields> {
        let mut fields = BTreeMap::new();
        while let Some(Token::Word(word)) = self.rest.last()
            && !["->", "was", "if", "then", "else"].contains(&word.as_str())
        {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.parse().map_err(|_| format!("{word:?} has no number"))?),
                None => (word.as_str(), 1),
            };
            if fields.insert(name.to_owned(), value).is_some() {
                return Err(format!("{name} stands there twice"));
            }
            self.rest.pop();
        }
        Ok(Fields(fields))
    }

    fn list<T>(&mut self, item: fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        if self.next()? != Token::Sign('[') {
            return Err("a list begins with [".into());
        }
        let mut items = Vec::new();
        if self.rest.last() == Some(&Token::Sign(']')) {
            self.rest.pop();
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            match self.next()? {
                Token::Sign(']') => return Ok(items),
                Token::Sign(';') => {}
                other => return Err(format!("; or ] is missing before {other:?}")),
            }
        }
    }

    fn keys(&mut self) -> Parsed<KeyRange> {
        let key = self.bytes()?;
        let end = match self.rest.last() {
            Some(Token::Bytes(_)) => self.bytes()?,
            _ => Bytes::new(),
        };
        Ok(KeyRange { key, end })
    }

    fn end(&self) -> Parsed<()> {
        self.rest.last().map_or(Ok(()), |token| Err(format!("{token:?} is too much")))
    }
}

fn operation(words: &mut Words) -> Parsed<Operation> {
    let (client, member) = who(words)?;
    let times = words.word()?;
    let (called, returned) = times.split_once("..").ok_or_else(|| format!("{times:?} has no .."))?;
    let returned = if returned.is_empty() { None } else { Some(moment(returned)?) };
    let called = moment(called)?;
    let request = request(words)?;
    words.expect("->")?;
    let outcome = outcome(words)?;
    Ok(Operation { client, member, called, returned, request, outcome })
}

fn who(words: &mut Words) -> Parsed<(ClientId, Option<NodeId>)> {
    let client = words.behind('c')?;
    let client = client.parse().map_err(|_| format!("{client:?} is no client"))?;
    let member = words.behind('n')?;
    let id = |_| u64::from_str_radix(&member, 16).ok().and_then(NodeId::new);
    let member = match member.as_str() {
        "?" => None,
        _ => Some(id(()).ok_or_else(|| format!("{member:?} is no member"))?),
    };
    Ok((ClientId(client), member))
}

fn moment(word: &str) -> Parsed<Moment> {
    word.parse().map(Moment).map_err(|_| format!("{word:?} is no time"))
}

fn request(words: &mut Words) -> Parsed<Request> {
    let kind = words.word()?;
    Ok(match kind.as_str() {
        "compact" => Request::Compact(Revision(words.number()?)),
        "grant" => {
            let id = words.number()?;
            let mut fields = words.fields()?;
            let ttl = fields.take("ttl");
            fields.end()?;
            Request::LeaseGrant(LeaseGrant { id, ttl })
        }
        "revoke" => Request::LeaseRevoke(LeaseRevoke { id: words.number()? }),
        "renew" => Request::LeaseRenew(LeaseId(words.number()?)),
        "range" => {
            let (range, mut fields) = range_request(words)?;
            let serializable = fields.flag("serializable");
            fields.end()?;
            Request::Range { range, serializable }
        }
        _ => match key_request(words, &kind)? {
            TxnOpKind::Put(put) => Request::Put(put),
            TxnOpKind::DeleteRange(delete) => Request::DeleteRange(delete),
            TxnOpKind::Txn(txn) => Request::Txn(txn),
            TxnOpKind::Range(range) => Request::Range { range, serializable: false },
        },
    })
}

fn range_request(words: &mut Words) -> Parsed<(Range, Fields)> {
    let keys = words.keys()?;
    let mut fields = words.fields()?;
    let small = |number: i64| i32::try_from(number).map_err(|_| format!("{number} is too large"));
    let range = Range {
        key: keys.key,
        range_end: keys.end,
        limit: fields.take("limit"),
        revision: fields.take("revision"),
        sort_order: small(fields.take("sort_order"))?,
        sort_target: small(fields.take("sort_target"))?,
        keys_only: fields.flag("keys_only"),
        count_only: fields.flag("count_only"),
        min_mod_revision: fields.take("min_mod"),
        max_mod_revision: fields.take("max_mod"),
        min_create_revision: fields.take("min_create"),
        max_create_revision: fields.take("max_create"),
    };
    Ok((range, fields))
}

/// A request that may stand in a transaction.
fn key_request(words: &mut Words, kind: &str) -> Parsed<TxnOpKind> {
    match kind {
        "range" => {
            let (range, fields) = range_request(words)?;
            fields.end()?;
            Ok(TxnOpKind::Range(range))
        }
        "put" => {
            let (key, value) = (words.bytes()?, words.bytes()?);
            let mut fields = words.fields()?;
            let put = Put {
                key,
                value,
                lease: fields.take("lease"),
                prev_kv: fields.flag("prev_kv"),
                ignore_value: fields.flag("ignore_value"),
                ignore_lease: fields.flag("ignore_lease"),
            };
            fields.end()?;
            Ok(TxnOpKind::Put(put))
        }
        "delete" => {
            let keys = words.keys()?;
            let mut fields = words.fields()?;
            let prev_kv = fields.flag("prev_kv");
            fields.end()?;
            Ok(TxnOpKind::DeleteRange(DeleteRange { key: keys.key, range_end: keys.end, prev_kv }))
        }
        "txn" => Ok(TxnOpKind::Txn(txn_request(words)?)),
        other => Err(format!("{other:?} is no request")),
    }
}

fn txn_request(words: &mut Words) -> Parsed<Txn> {
    if words.depth == DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} transactions within each other"));
    }
    words.depth += 1;
    words.expect("if")?;
    let compare = words.list(compare)?;
    words.expect("then")?;
    let op = |words: &mut Words| {
        let kind = words.word()?;
        key_request(words, &kind).map(|kind| TxnOp { kind: Some(kind) })
    };
    let success = words.list(op)?;
    words.expect("else")?;
    let failure = words.list(op)?;
    words.depth -= 1;
    Ok(Txn { compare, success, failure })
}

fn compare(words: &mut Words) -> Parsed<Compare> {
    let target = words.word()?;
    let sign = words.word()?;
    let result = match sign.as_str() {
        "=" => CompareResult::Equal,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        "!=" => CompareResult::NotEqual,
        _ => return Err(format!("{sign:?} compares nothing")),
    };
    let target = match target.as_str() {
        "version" => CompareTarget::Version(words.number()?),
        "create" => CompareTarget::CreateRevision(words.number()?),
        "mod" => CompareTarget::ModRevision(words.number()?),
        "lease" => CompareTarget::Lease(words.number()?),
        "value" => CompareTarget::Value(words.bytes()?),
        _ => return Err(format!("{target:?} cannot be compared")),
    };
    let keys = words.keys()?;
    Ok(Compare { key: keys.key, range_end: keys.end, result: result.into(), target: Some(target) })
}

fn outcome(words: &mut Words) -> Parsed<OperationOutcome> {
    let first = words.word()?;
    match first.as_str() {
        "unknown" => Ok(OperationOutcome::Unknown),
        "refused" => Ok(OperationOutcome::Refused(refusal(&words.word()?)?)),
        _ => {
            let revision = match first.strip_prefix('@') {
                Some("?") => None,
                _ => Some(header(&first)?),
            };
            Ok(OperationOutcome::Answered(Answer { revision, reply: reply(words)? }))
        }
    }
}

fn header(word: &str) -> Parsed<Revision> {
    let number = word.strip_prefix('@').and_then(|number| number.parse().ok());
    number.map(Revision).ok_or_else(|| format!("{word:?} is no revision"))
}

fn refusal(name: &str) -> Parsed<Refusal> {
    let all = (0..).map_while(|number| Refusal::try_from(number).ok());
    let found = all.into_iter().find(|refusal| format!("{refusal:?}") == name);
    found.ok_or_else(|| format!("{name:?} is no refusal"))
}

fn reply(words: &mut Words) -> Parsed<Reply> {
    let kind = words.word()?;
    let ttl = |words: &mut Words| {
        let mut fields = words.fields()?;
        let ttl_s = fields.take("ttl");
        fields.end().map(|()| ttl_s)
    };
    Ok(match kind.as_str() {
        "compact" => Reply::Compact,
        "grant" => Reply::LeaseGrant { ttl_s: ttl(words)? },
        "revoke" => Reply::LeaseRevoke,
        "renew" => Reply::LeaseRenew { ttl_s: ttl(words)? },
        _ => match key_reply(words, &kind)? {
            OpOutcomeKind::Range(outcome) => Reply::Range(outcome),
            OpOutcomeKind::Put(outcome) => Reply::Put(outcome),
            OpOutcomeKind::DeleteRange(outcome) => Reply::DeleteRange(outcome),
            OpOutcomeKind::Txn(outcome) => Reply::Txn(outcome),
        },
    })
}

fn key_reply(words: &mut Words, kind: &str) -> Parsed<OpOutcomeKind> {
    match kind {
        "range" => {
            let kvs = words.list(key_value)?;
            let mut fields = words.fields()?;
            let outcome = RangeOutcome { kvs, more: fields.flag("more"), count: fields.take("count") };
            fields.end()?;
            Ok(OpOutcomeKind::Range(outcome))
        }
        "put" => {
            let mut kvs = words.list(key_value)?;
            if kvs.len() > 1 {
                return Err("a put replaces one key".into());
            }
            Ok(OpOutcomeKind::Put(PutOutcome { prev_kv: kvs.pop() }))
        }
        "delete" => {
            let prev_kvs = words.list(key_value)?;
            let mut fields = words.fields()?;
            let outcome = DeleteRangeOutcome { deleted: fields.take("deleted"), prev_kvs };
            fields.end()?;
            Ok(OpOutcomeKind::DeleteRange(outcome))
        }
        "txn" => {
            if words.depth == DEPTH_MAX {
                return Err(format!("more than {DEPTH_MAX} transactions within each other"));
            }
            words.depth += 1;
            let branch = words.word()?;
            let succeeded = match branch.as_str() {
                "then" => true,
                "else" => false,
                _ => return Err(format!("{branch:?} is no branch: then and else are")),
            };
            let responses = words.list(|words| {
                let kind = words.word()?;
                key_reply(words, &kind).map(|kind| OpOutcome { kind: Some(kind) })
            })?;
            words.depth -= 1;
            Ok(OpOutcomeKind::Txn(TxnOutcome { succeeded, responses }))
        }
        other => Err(format!("{other:?} is no answer")),
    }
}

fn key_value(words: &mut Words) -> Parsed<KeyValue> {
    let (key, value) = (words.bytes()?, words.bytes()?);
    let mut fields = words.fields()?;
    let kv = KeyValue {
        key,
        value,
        create_revision: fields.take("c"),
        mod_revision: fields.take("m"),
        version: fields.take("v"),
        lease: fields.take("l"),
    };
    fields.end().map(|()| kv)
}

fn event(words: &mut Words) -> Parsed<Event> {
    let kind = words.word()?;
    let event_type = match kind.as_str() {
        "put" => EventType::Put,
        "delete" => EventType::Delete,
        _ => return Err(format!("{kind:?} is no event")),
    };
    let kv = Some(key_value(words)?);
    let prev_kv = match words.rest.last() {
        Some(Token::Word(_)) => {
            words.expect("was")?;
            Some(key_value(words)?)
        }
        _ => None,
    };
    Ok(Event { event_type: event_type.into(), kv, prev_kv })
}

fn watch(words: &mut Words) -> Parsed<Watch> {
    let (client, member) = who(words)?;
    let called = moment(&words.word()?)?;
    let keys = words.keys()?;
    let mut fields = words.fields()?;
    let request = WatchRequest {
        keys,
        start: fields.revision("start")?,
        no_put: fields.flag("no_put"),
        no_delete: fields.flag("no_delete"),
        prev_kv: fields.flag("prev_kv"),
        fragment: fields.flag("fragment"),
    };
    let resumes = fields.0.remove("resumes").map(usize::try_from).transpose();
    let resumes = resumes.map_err(|_| "resumes is below 0".to_owned())?;
    fields.end()?;
    Ok(Watch { client, member, called, request, resumes, responses: Vec::new() })
}

fn response(words: &mut Words) -> Parsed<WatchResponse> {
    let at = moment(&words.word()?)?;
    let revision = header(&words.word()?)?;
    let kind = words.word()?;
    let message = match kind.as_str() {
        "created" => WatchMessage::Created,
        "progress" => WatchMessage::Progress,
        "events" => {
            let events = words.list(event)?;
            let mut fields = words.fields()?;
            let fragment = fields.flag("fragment");
            fields.end()?;
            WatchMessage::Events { events, fragment }
        }
        "canceled" => {
            let reason = String::from_utf8_lossy(&words.bytes()?).into_owned();
            let mut fields = words.fields()?;
            let compact_revision = fields.revision("compacted")?;
            fields.end()?;
            WatchMessage::Canceled { compact_revision, reason }
        }
        other => return Err(format!("{other:?} is nothing that a watch is told")),
    };
    Ok(WatchResponse { at, revision, message })
}
