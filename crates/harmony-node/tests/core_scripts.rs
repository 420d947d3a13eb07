//! Golden scripts of the core: each block is commands and the trace they give. See `tests/core_scripts/*.txt`.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/world.rs"]
mod support;

use harmony_node::core::event::Event;
use harmony_types::fake::script;
use harmony_types::{ConfChange, ConfChangeType, Role, Storage};
use support::{World, id, member};

fn run(world: &mut Option<World>, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let numbers: Vec<u64> = words[1..].iter().filter_map(|word| word.parse().ok()).collect();
    if words[0] == "cluster" {
        let voters = (1..=numbers[0]).map(|number| member(number, Role::Voter));
        let learners = (numbers[0] + 1..=numbers[0] + numbers.get(1).copied().unwrap_or(0))
            .map(|number| member(number, Role::Learner));
        *world = Some(World::new(&voters.chain(learners).collect::<Vec<_>>()));
        return;
    }
    let world = world.as_mut().unwrap();
    match (words[0], numbers.as_slice()) {
        ("campaign", [node]) => world.turn(*node, [Event::Campaign]),
        ("put", [node]) => world.put(*node, words[2]),
        ("read", [node]) => world.read(*node),
        ("tick", [node, count]) => world.tick(*node, *count),
        ("wait", [node, count]) => {
            world.verbose = false;
            world.tick(*node, *count);
            world.verbose = true;
        }
        ("sync", [node]) => drop(world.sync(*node)),
        ("apply", [node]) => drop(world.apply(*node)),
        ("deliver", []) => drop(world.deliver()),
        ("settle", []) => world.settle(),
        ("lose", []) => world.messages.clear(),
        ("cut", [from, to]) => world.cut(*from, *to),
        ("isolate", [node]) => world.isolate(*node),
        ("heal", []) => world.heal(),
        ("crash", [node]) => world.crash(*node),
        ("start", [node]) => world.start(*node),
        ("transfer", [node, to]) => world.turn(*node, [Event::Transfer { to: id(*to) }]),
        ("release", [node]) => {
            let storage = &world.nodes[node].storage;
            storage.checkpoint().unwrap();
            storage.release(storage.applied().index).unwrap();
        }
        ("gone", [node, peer]) => world.turn(*node, [Event::Gone { peer: id(*peer) }]),
        ("leave", [node]) => world.leave(*node),
        // change NODE add-voter 4 remove 2 ...: in one step.
        ("change", [node, ..]) => {
            let changes = words[2..].chunks(2).map(|pair| {
                let (change_type, role) = match pair[0] {
                    "add-learner" => (ConfChangeType::AddLearner, Role::Learner),
                    "join" => (ConfChangeType::Join, Role::Learner),
                    "add-voter" => (ConfChangeType::AddVoter, Role::Voter),
                    "promote" => (ConfChangeType::Promote, Role::Voter),
                    "update" => (ConfChangeType::Update, Role::Voter),
                    _ => (ConfChangeType::Remove, Role::Voter),
                };
                ConfChange { change_type, member: member(pair[1].parse().unwrap(), role) }
            });
            world.change(*node, changes.collect());
        }
        ("status", []) => world.status().into_iter().for_each(|line| world.trace.line(line)),
        _ => panic!("unknown command: {line}"),
    }
}

#[test]
fn scripts() {
    script::check_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/core_scripts"), || {
        let mut world = None;
        move |block: &str| {
            block.lines().for_each(|line| run(&mut world, line));
            world.as_ref().unwrap().trace.take().join("\n")
        }
    });
}
