//! What keys do: to what is shown at once, to the daemon as a line that is asked of it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Dialog, Model, Pane, Sort};

/// Characters of a filter; more are not taken.
const FILTER_MAX: usize = 64;
/// Torrents that a page key goes on by.
const PAGE: isize = 10;

/// What a key wants beyond the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// To end.
    Quit,
    /// To stop until the shell goes on with us.
    Suspend,
    /// That the daemon does this: the line, and what to say once it is done.
    Act(String, String),
}

/// Does what `key` means.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Wish {
    model.message.clear();
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Wish::Quit,
            KeyCode::Char('z') => Wish::Suspend,
            _ => Wish::Nothing,
        };
    }
    match model.dialog.clone() {
        Some(Dialog::Filter) => type_filter(model, key.code),
        Some(Dialog::Help) => model.dialog = None,
        Some(Dialog::Remove(id, name)) => {
            model.dialog = None;
            return match key.code {
                KeyCode::Char('y') => Wish::Act(format!("json remove {id}"), format!("removed {name}")),
                KeyCode::Char('D') => {
                    Wish::Act(format!("json remove {id} data=yes"), format!("removed {name} and its data"))
                }
                _ => Wish::Nothing,
            };
        }
        None => return press_plain(model, key.code),
    }
    Wish::Nothing
}

fn press_plain(model: &mut Model, code: KeyCode) -> Wish {
    let act = |model: &Model, verb: &str, done: &str| match model.selected() {
        Some(torrent) => Wish::Act(format!("json {verb} {}", torrent.id), format!("{done} {}", torrent.name)),
        None => Wish::Nothing,
    };
    match code {
        KeyCode::Char('q') => return Wish::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => model.dialog = Some(Dialog::Help),
        KeyCode::Up | KeyCode::Char('k') => model.step(-1),
        KeyCode::Down | KeyCode::Char('j') => model.step(1),
        KeyCode::PageUp => model.step(-PAGE),
        KeyCode::PageDown => model.step(PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.select(0),
        KeyCode::End | KeyCode::Char('G') => model.select(usize::MAX),
        KeyCode::Char('p') => return act(model, "pause", "paused"),
        KeyCode::Char('r') => return act(model, "resume", "resumed"),
        KeyCode::Char('v') => return act(model, "verify", "checking"),
        KeyCode::Char('a') => return act(model, "announce", "announcing"),
        KeyCode::Char('d') | KeyCode::Delete => {
            model.dialog = model.selected().map(|torrent| Dialog::Remove(torrent.id.clone(), torrent.name.clone()));
        }
        KeyCode::Char('s') => sort(model, 1),
        KeyCode::Char('S') => {
            model.is_reversed = !model.is_reversed;
            model.arrange();
        }
        KeyCode::Char('/' | 'f') => model.dialog = Some(Dialog::Filter),
        KeyCode::Esc => {
            model.filter.clear();
            model.arrange();
        }
        KeyCode::Tab | KeyCode::Right => turn(model, 1),
        KeyCode::BackTab | KeyCode::Left => turn(model, Pane::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='6') => {
            let index = (digit as usize) - ('1' as usize);
            model.look_at(Pane::ALL[index]);
        }
        KeyCode::Char('+' | ']') => model.scrolled += 1,
        KeyCode::Char('-' | '[') => model.scrolled = model.scrolled.saturating_sub(1),
        _ => {}
    }
    Wish::Nothing
}

fn type_filter(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter => model.dialog = None,
        KeyCode::Esc => {
            model.dialog = None;
            model.filter.clear();
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(c) if model.filter.chars().count() < FILTER_MAX => model.filter.push(c),
        _ => return,
    }
    model.arrange();
}

fn sort(model: &mut Model, by: usize) {
    let at = Sort::ALL.iter().position(|sort| *sort == model.sort).unwrap_or(0);
    model.sort = Sort::ALL[(at + by) % Sort::ALL.len()];
    model.is_reversed = false;
    model.arrange();
}

fn turn(model: &mut Model, by: usize) {
    let at = Pane::ALL.iter().position(|pane| *pane == model.pane).unwrap_or(0);
    model.look_at(Pane::ALL[(at + by) % Pane::ALL.len()]);
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::of;
    use super::*;

    fn keys(model: &mut Model, keys: &str) -> Wish {
        let mut wish = Wish::Nothing;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                c => KeyCode::Char(c),
            };
            wish = press(model, KeyEvent::new(code, KeyModifiers::NONE));
        }
        wish
    }

    #[test]
    fn nothing_is_removed_without_being_asked() {
        let mut model = of(3);
        let id = format!("{:040x}", 1);
        assert_eq!(keys(&mut model, "jd"), Wish::Nothing);
        assert_eq!(keys(&mut model, "n"), Wish::Nothing);
        assert_eq!((model.dialog.clone(), keys(&mut model, "\n")), (None, Wish::Nothing));
        assert_eq!(keys(&mut model, "dy"), Wish::Act(format!("json remove {id}"), "removed torrent 00001".into()));
        let data = "removed torrent 00001 and its data";
        assert_eq!(keys(&mut model, "dD"), Wish::Act(format!("json remove {id} data=yes"), data.into()));
        assert_eq!(keys(&mut model, "p"), Wish::Act(format!("json pause {id}"), "paused torrent 00001".into()));
    }

    #[test]
    fn a_filter_is_typed_and_its_letters_are_no_commands() {
        let mut model = of(12);
        assert_eq!(keys(&mut model, "/0001q"), Wish::Nothing);
        assert_eq!((model.filter.as_str(), model.counts()), ("0001q", (0, 12)));
        press(&mut model, KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        assert_eq!(model.counts().0, 3, "1, 10 and 11");
        assert_eq!(keys(&mut model, "\nq"), Wish::Quit);
        keys(&mut model, "\x1b");
        assert_eq!(model.counts().0, 12);
        keys(&mut model, &format!("/{}", "x".repeat(1000)));
        assert_eq!(model.filter.len(), FILTER_MAX);
    }

    #[test]
    fn with_no_torrents_no_key_does_anything() {
        let mut model = Model::new();
        for key in "jkgGpvrads\tS123456+-/x\n".chars() {
            assert_eq!(keys(&mut model, &key.to_string()), Wish::Nothing, "{key}");
        }
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        assert_eq!(press(&mut model, control('c')), Wish::Quit);
        assert_eq!(press(&mut model, control('z')), Wish::Suspend);
        assert_eq!(press(&mut model, control('q')), Wish::Nothing);
    }

    #[test]
    fn panes_and_orders_go_around() {
        let mut model = of(3);
        for pane in [Pane::Peers, Pane::Files, Pane::Trackers, Pane::Pieces, Pane::Log, Pane::Info] {
            keys(&mut model, "\t");
            assert_eq!(model.pane, pane);
        }
        keys(&mut model, "5");
        assert_eq!(model.pane, Pane::Pieces);
        for _ in Sort::ALL {
            keys(&mut model, "s");
        }
        assert_eq!(model.sort, Sort::Name);
    }
}
