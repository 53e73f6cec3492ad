//! `batch`: left out, as CodeBuild does in a build that is not started as a batch. The builds of it
//! must have names, and must not wait for one another; what is wrong there stops no build.

use std::collections::HashMap;

use super::Walk;
use crate::{
    buildspec::problem::Fault,
    source::Place,
    yaml::{Entry, Node, Value},
};

/// A build of a batch: what it is called, and what it waits for.
struct Task<'y> {
    identifier: &'y str,
    place: Place,
    depend_on: Vec<(&'y str, Place)>,
}

impl Walk {
    pub(super) fn batch(&mut self, entry: Entry) {
        let before = self.problems.len();
        for key in ["build-list", "build-graph"] {
            if let Some(Node { value: Value::List(items), .. }) = child(&entry.node, key) {
                self.tasks(&items.iter().filter_map(task).collect::<Vec<_>>());
            }
        }
        self.left_out(entry, "rbuild runs the `phases` alone, as a build outside of a batch does");
        // CodeBuild does not look at it in such a build.
        let found = self.problems.split_off(before);
        self.spec.tolerated.extend(found);
    }

    fn tasks(&mut self, tasks: &[Task<'_>]) {
        let mut indices = HashMap::new();
        for (index, Task { identifier, place, .. }) in tasks.iter().enumerate() {
            let name = (*identifier).to_owned();
            // CodeBuild takes hyphens, though its documentation has none.
            let is_fine = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-');
            if name.is_empty() || !name.bytes().all(is_fine) {
                self.problems.push(Fault::Identifier { name }.at(*place));
            } else if indices.insert(*identifier, index).is_some() {
                self.problems.push(Fault::Duplicate { name }.at(*place));
            }
        }
        for task in tasks {
            for (name, place) in &task.depend_on {
                if !indices.contains_key(name) {
                    let (waiting, name) = (task.identifier.to_owned(), (*name).to_owned());
                    self.problems.push(Fault::Dependency { waiting, name }.at(*place));
                }
            }
        }
        if let Some(cycle) = cycle(tasks, &indices) {
            let place = tasks[cycle[0]].place;
            let names = cycle.iter().map(|it| tasks[*it].identifier.to_owned()).collect();
            self.problems.push(Fault::Cycle { names }.at(place));
        }
    }
}

/// Tasks of which each waits for the next, and the last for the first.
fn cycle(tasks: &[Task<'_>], indices: &HashMap<&str, usize>) -> Option<Vec<usize>> {
    let depend_on =
        |of: usize| tasks[of].depend_on.iter().filter_map(|(name, _)| indices.get(name).copied());
    let mut waiting: Vec<usize> = (0..tasks.len()).map(|it| depend_on(it).count()).collect();
    let mut dependants = vec![Vec::new(); tasks.len()];
    for task in 0..tasks.len() {
        depend_on(task).for_each(|it| dependants[it].push(task));
    }
    // What waits for nothing runs; what is left in the end has only what is left to wait for.
    let mut ready: Vec<usize> = (0..tasks.len()).filter(|it| waiting[*it] == 0).collect();
    while let Some(done) = ready.pop() {
        for dependant in &dependants[done] {
            waiting[*dependant] -= 1;
            if waiting[*dependant] == 0 {
                ready.push(*dependant);
            }
        }
    }
    let mut way = vec![waiting.iter().position(|it| *it > 0)?];
    let mut seen = HashMap::from([(way[0], 0)]);
    loop {
        let next = depend_on(*way.last()?).find(|it| waiting[*it] > 0)?;
        if let Some(start) = seen.insert(next, way.len()) {
            return Some(way.split_off(start));
        }
        way.push(next);
    }
}

/// A build, if it has a name.
fn task(node: &Node) -> Option<Task<'_>> {
    let identifier = child(node, "identifier")?;
    let depend_on = match child(node, "depend-on").map(|it| (&it.value, it.place)) {
        Some((Value::List(items), _)) => items.iter().filter_map(text).collect(),
        Some((Value::Text(name), place)) => vec![(name.as_str(), place)],
        _ => Vec::new(),
    };
    let (identifier, place) = text(identifier)?;
    Some(Task { identifier, place, depend_on })
}

fn text(node: &Node) -> Option<(&str, Place)> {
    match &node.value {
        Value::Text(text) => Some((text, node.place)),
        _ => None,
    }
}

fn child<'y>(node: &'y Node, key: &str) -> Option<&'y Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|it| it.key == key).map(|it| &it.node),
        _ => None,
    }
}
