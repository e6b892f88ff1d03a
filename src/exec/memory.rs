//! Where temporary tensors lie: colours, so that no buffer is both read and written in one dispatch; offsets by liveness.

use crate::graph::Placed;

/// A piece of memory that a plan needs for some time.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Bytes.
    pub bytes: u64,
    /// First step that touches it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
    /// Objects that some dispatch writes while it reads this one, or the other way round.
    pub conflicts: Vec<usize>,
}

/// Where an object lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index of the arena.
    pub arena: usize,
    /// Offset in it.
    pub offset: u64,
}

/// Places of objects, and the bytes of each arena.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// One an object.
    pub places: Vec<Place>,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
}

impl Placement {
    /// Places that were chosen before, where they hold for these objects.
    pub fn stored(placed: &Placed, objects: &[Object], align: u64, most: u64) -> Option<Placement> {
        let places: Vec<Place> = placed
            .tensors
            .iter()
            .map(|(arena, offset, _)| Place { arena: *arena, offset: *offset })
            .collect();
        let end = |i: usize| places[i].offset.checked_add(objects[i].bytes);
        let holds = |(i, o): (usize, &Object)| {
            let (at, bytes) = (places[i], placed.tensors[i].2);
            let inside = placed.arenas.get(at.arena).is_some_and(|a| end(i).is_some_and(|end| end <= *a));
            let apart = |j: usize| {
                let alive = objects[j].first <= o.last && o.first <= objects[j].last;
                let overlap = end(i) > Some(places[j].offset) && end(j) > Some(at.offset);
                at.arena != places[j].arena || !(o.conflicts.contains(&j) || alive && overlap)
            };
            bytes == o.bytes && at.offset % align == 0 && inside && (0..i).all(apart)
        };
        let fits = places.len() == objects.len()
            && placed.arenas.iter().all(|a| *a <= most)
            && objects.iter().enumerate().all(holds);
        fits.then(|| Placement { places, arenas: placed.arenas.clone() })
    }

    /// The same as data that can be kept.
    pub fn keep(&self, objects: &[Object]) -> (Vec<u64>, Vec<(usize, u64, u64)>) {
        let each = self.places.iter().zip(objects).map(|(p, o)| (p.arena, p.offset, o.bytes));
        (self.arenas.clone(), each.collect())
    }
}

/// Gives conflicting objects different colours, in order of their first use.
fn colours(objects: &[Object]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by_key(|i| (objects[*i].first, *i));
    let mut colour: Vec<Option<usize>> = vec![None; objects.len()];
    for i in order {
        let taken: Vec<usize> = objects[i].conflicts.iter().filter_map(|j| colour[*j]).collect();
        colour[i] = (0..).find(|c| !taken.contains(c));
    }
    colour.into_iter().map(Option::unwrap_or_default).collect()
}

/// Places objects: the largest first, each at the lowest offset that is free for as long as it lives. An arena is of
/// one colour and at most `most` bytes; offsets are multiples of `align`.
pub(super) fn place(objects: &[Object], align: u64, most: u64) -> Placement {
    let colour = colours(objects);
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(objects[*i].bytes), *i));
    let mut out = Placement { places: vec![Place::default(); objects.len()], arenas: Vec::new() };
    let mut colour_of: Vec<usize> = Vec::new();
    let mut inside: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let o = &objects[i];
        let bytes = o.bytes.max(1).next_multiple_of(align);
        let fit = (0..colour_of.len()).filter(|a| colour_of[*a] == colour[i]).find_map(|a| {
            let alive =
                inside[a].iter().filter(|j| objects[**j].first <= o.last && o.first <= objects[**j].last);
            let mut taken: Vec<(u64, u64)> = alive
                .map(|j| {
                    let at = out.places[*j].offset;
                    (at, at + objects[*j].bytes.max(1).next_multiple_of(align))
                })
                .collect();
            taken.sort_unstable();
            let mut offset = 0;
            for (from, to) in taken {
                if from >= offset + bytes {
                    break;
                }
                offset = offset.max(to);
            }
            (offset + bytes <= most).then_some((a, offset))
        });
        let (arena, offset) = fit.unwrap_or_else(|| {
            colour_of.push(colour[i]);
            inside.push(Vec::new());
            out.arenas.push(0);
            (colour_of.len() - 1, 0)
        });
        out.places[i] = Place { arena, offset };
        out.arenas[arena] = out.arenas[arena].max(offset + bytes);
        inside[arena].push(i);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    fn random(rng: &mut Rng) -> Vec<Object> {
        let n = rng.int(1, 60);
        let mut objects: Vec<Object> = (0..n)
            .map(|_| {
                let first = rng.int(0, 40);
                let bytes = rng.int(0, 5000) as u64;
                Object { bytes, first, last: first + rng.int(0, 10), conflicts: vec![] }
            })
            .collect();
        for _ in 0..rng.int(0, 80) {
            let (a, b) = (rng.int(0, n - 1), rng.int(0, n - 1));
            if a != b {
                objects[a].conflicts.push(b);
                objects[b].conflicts.push(a);
            }
        }
        objects
    }

    #[test]
    fn live_objects_never_overlap_and_conflicting_ones_lie_apart() {
        let mut rng = Rng::new(3);
        for round in 0..200 {
            let objects = random(&mut rng);
            let most = 8192;
            let p = place(&objects, 256, most);
            assert!(p.arenas.iter().all(|a| *a <= most), "{:?}", p.arenas);
            for (i, a) in objects.iter().enumerate() {
                let at = p.places[i];
                assert_eq!(at.offset % 256, 0);
                assert!(at.offset + a.bytes <= p.arenas[at.arena]);
                for j in &a.conflicts {
                    assert_ne!(at.arena, p.places[*j].arena, "round {round}: {i} and {j}");
                }
                for (j, b) in objects.iter().enumerate().skip(i + 1) {
                    let to = p.places[j];
                    let together = a.first <= b.last && b.first <= a.last && at.arena == to.arena;
                    let apart = at.offset + a.bytes <= to.offset || to.offset + b.bytes <= at.offset;
                    assert!(!together || apart || a.bytes == 0 || b.bytes == 0, "round {round}: {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_arenas_of_one_tensor_each() {
        let objects: Vec<Object> = (0..10)
            .map(|i: usize| Object {
                bytes: 1024,
                first: i,
                last: i + 1,
                conflicts: [i.checked_sub(1), (i < 9).then_some(i + 1)].into_iter().flatten().collect(),
            })
            .collect();
        assert_eq!(place(&objects, 256, 1 << 20).arenas, [1024, 1024]);
    }
}
