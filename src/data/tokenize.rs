//! Text to token ids and back, over Hugging Face's `tokenizer.json`.
//!
//! Prompt and completion are split by TRL's joint rule (TRL ≥ 0.29, `DPOTrainer`): the EOS text is appended to the
//! completion unless it ends with it, `prompt` and `prompt + completion` are encoded, each as a whole, and the completion's
//! ids are those of the whole after the prompt's length. Where the whole does not begin with the prompt's ids (a token
//! reaches over the boundary), the pair is a boundary mismatch, which the audit counts. [`Tokenization`] names what TRL did before.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use crate::data::{Demonstration, Pair, TokenizedExample, TokenizedPair};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::settings::Tokenization;

/// Where `transformers` keeps a chat template, besides `tokenizer_config.json`.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
const PAD: &str = "<pad>";
const BOS: &str = "<s>";
const EOS: &str = "</s>";
/// Every byte has a token, and the three special ones: no vocabulary of ours is smaller.
const SMALLEST_VOCABULARY: usize = 256 + 3;

/// A tokenizer with its special tokens and the files it came from.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    vocab_size: usize,
    bos: Option<u32>,
    eos: u32,
    eos_text: String,
    special: Vec<u32>,
    unknown: Option<u32>,
    /// Whether texts are written by a chat template, with all their special tokens.
    templated: bool,
    tokenization: Tokenization,
    /// `tokenizer.json`, byte for byte.
    json: Vec<u8>,
    /// `tokenizer_config.json`, byte for byte.
    config: Vec<u8>,
    /// `chat_template.jinja`, where the folder has one.
    chat_template: Option<Vec<u8>>,
}

/// A completion's ids by the joint rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JointCompletion {
    pub ids: Vec<u32>,
    /// Whether the whole's ids do not begin with the prompt's.
    pub boundary_mismatch: bool,
}

#[derive(Serialize)]
struct TokenizerConfig<'a> {
    add_bos_token: bool,
    add_eos_token: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token: Option<&'a str>,
    clean_up_tokenization_spaces: bool,
    eos_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pad_token: Option<&'a str>,
    tokenizer_class: &'a str,
}

impl TextTokenizer {
    /// Byte-level BPE on `corpus` with `<pad>` = 0, `<s>` = 1, `</s>` = 2. The same texts give the same bytes, in any order.
    /// A small corpus may have fewer merges to offer than `vocab_size` asks for.
    pub fn train<S: AsRef<str>>(corpus: &[S], vocab_size: usize) -> Result<Self> {
        if vocab_size < SMALLEST_VOCABULARY {
            return Err(Error::usage(format!("vocab_size = {vocab_size} is too small for byte-level BPE"))
                .help(format!("choose at least {SMALLEST_VOCABULARY}: 256 bytes and three special tokens")));
        }
        if corpus.iter().all(|text| text.as_ref().is_empty()) {
            return Err(Error::input("a tokenizer can't be trained on an empty corpus"));
        }
        let bytes = trained(corpus, vocab_size).map_err(|e| Error::unexpected(format!("training the tokenizer failed: {e}")))?;
        check_routes(&bytes)?;
        let config = TokenizerConfig {
            add_bos_token: true,
            add_eos_token: false,
            bos_token: Some(BOS),
            clean_up_tokenization_spaces: false,
            eos_token: EOS,
            pad_token: Some(PAD),
            tokenizer_class: "PreTrainedTokenizerFast",
        };
        let config = serde_json::to_vec_pretty(&config).expect("plain fields serialise");
        Self::assemble(bytes, Some(config), None, None, Path::new("tokenizer.json"))
    }

    /// Reads `tokenizer.json`, and BOS and EOS from `tokenizer_config.json` or else `config.json`.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| std::fs::read(folder.join(name));
        let path = folder.join("tokenizer.json");
        let json = read("tokenizer.json").map_err(|e| {
            Error::io("read", &path, &e).help("a model folder holds tokenizer.json beside config.json and model.safetensors")
        })?;
        let optional = |name: &str| match read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &folder.join(name), &e)),
        };
        let (config, model, chat_template) =
            (optional("tokenizer_config.json")?, optional("config.json")?, optional(CHAT_TEMPLATE)?);
        Self::assemble(json, config, model, chat_template, &path)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and perhaps `chat_template.jinja`, so that `transformers` reads the same
    /// tokenizer; gives their names.
    pub fn save(&self, folder: &Path) -> Result<Vec<String>> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        let mut files = vec![("tokenizer.json", &self.json), ("tokenizer_config.json", &self.config)];
        files.extend(self.chat_template.as_ref().map(|template| (CHAT_TEMPLATE, template)));
        for (name, bytes) in &files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| Error::io("write", &path, &e))?;
        }
        Ok(files.into_iter().map(|(name, _)| name.to_owned()).collect())
    }

    /// The same with another chat template in its folder: `transformers` prefers this file to what `tokenizer_config.json` says.
    pub fn with_chat_template(self, source: String) -> Self {
        Self { chat_template: Some(source.into_bytes()), ..self }
    }

    fn assemble(
        json: Vec<u8>,
        config: Option<Vec<u8>>,
        model: Option<Vec<u8>>,
        chat_template: Option<Vec<u8>>,
        path: &Path,
    ) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(&json)
            .map_err(|e| Error::input(format!("this is no tokenizer.json that can be read: {e}")).in_file(path))?;
        // transformers ignores both unless asked, and a truncated prompt must never go unnoticed.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::unexpected(e.to_string()))?;
        let beside = |name: &str| path.with_file_name(name);
        let sources = Sources {
            config: parse(config.as_deref(), beside("tokenizer_config.json"))?,
            model: parse(model.as_deref(), beside("config.json"))?,
            tokenizer: &tokenizer,
        };
        let bos = sources.id("bos")?;
        let eos = sources.id("eos")?.ok_or_else(|| {
            Error::input("the tokenizer names no EOS token").in_file(path).help(
                "add \"eos_token\" to tokenizer_config.json or \"eos_token_id\" to config.json: completions must be able to end",
            )
        })?;
        let unknown = sources.id("unk")?;
        let text = |id: u32| tokenizer.id_to_token(id).expect("ids of special tokens were looked up");
        let eos_text = text(eos);
        let bos_text = bos.map(text);
        let config = config.unwrap_or_else(|| {
            let config = TokenizerConfig {
                add_bos_token: bos.is_some(),
                add_eos_token: false,
                bos_token: bos_text.as_deref(),
                clean_up_tokenization_spaces: false,
                eos_token: &eos_text,
                pad_token: None,
                tokenizer_class: "PreTrainedTokenizerFast",
            };
            serde_json::to_vec_pretty(&config).expect("plain fields serialise")
        });
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let mut special: Vec<u32> =
            tokenizer.get_added_tokens_decoder().iter().filter(|(_, t)| t.special).map(|(&id, _)| id).collect();
        special.sort_unstable();
        let (templated, tokenization) = (false, Tokenization::Joint);
        let this = Self {
            tokenizer,
            vocab_size,
            bos,
            eos,
            eos_text,
            special,
            unknown,
            templated,
            tokenization,
            json,
            config,
            chat_template,
        };
        this.probe().map_err(|e| e.in_file(path))?;
        Ok(this)
    }

    /// For texts that a chat template wrote (`templated`): nothing is added to them, neither BOS at the start nor EOS at the end, as
    /// `transformers` and TRL tokenise conversations.
    pub fn for_texts(self, templated: bool) -> Self {
        Self { templated, ..self }
    }

    /// The same for prompts and completions that are read as this says.
    pub fn with_tokenization(self, tokenization: Tokenization) -> Self {
        Self { tokenization, ..self }
    }

    /// Refuses tokenizers that fail on some texts or that end every text with EOS.
    fn probe(&self) -> Result<()> {
        let odd = "a \u{0}\u{7}\n\u{FFFD}\u{10FFFF}é漢🙂\u{301}";
        if let Err(e) = self.tokenizer.encode_fast(odd, true) {
            return Err(Error::input(format!("the tokenizer can't encode every text: {e}"))
                .help("a tokenizer needs an unknown token, or a token for every byte"));
        }
        if self.encode("a", true).last() == Some(&self.eos) {
            return Err(Error::input("the tokenizer ends every text with EOS, so prompts would end before their answer")
                .help("save it with add_eos_token = false"));
        }
        Ok(())
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The token that stands for what the vocabulary lacks; byte-level tokenizers have none.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    pub fn tokenization(&self) -> Tokenization {
        self.tokenization
    }

    /// Whether a chat template wrote the texts.
    pub fn is_templated(&self) -> bool {
        self.templated
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// The digest of `tokenizer.json`.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(&self.json)
    }

    /// The bytes of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Vec<u32> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens).expect("`probe` refused tokenizers that can fail");
        encoding.get_ids().to_vec()
    }

    /// The ids of a text with nothing added.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        self.encode(text, false)
    }

    /// The ids of a prompt with what the tokenizer's own post-processor adds (BOS, in most).
    pub fn prompt(&self, text: &str) -> Vec<u32> {
        match self.tokenization {
            Tokenization::Joint => self.encode(text, !self.templated),
            Tokenization::Separate => self.ids(text),
            Tokenization::WalkBack => self.after_bos(self.ids(text)),
        }
    }

    /// `ids` with BOS before them, if it isn't there yet.
    fn after_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// The ids of `completion` after `prompt` (whose ids are `prompt_ids`). By the joint rule they end with EOS, unless a template wrote
    /// them and ended them otherwise; by the others always. By `walk_back` they take the place of the prompt's last token too where there is a
    /// mismatch: [`Self::sequences`] knows of it.
    pub fn completion(&self, prompt: &str, prompt_ids: &[u32], completion: &str) -> JointCompletion {
        if self.tokenization == Tokenization::Joint {
            return self.joint(prompt, prompt_ids, completion);
        }
        let whole = self.ids(&format!("{prompt}{completion}"));
        let separate = self.tokenization == Tokenization::Separate;
        let whole = if separate { whole } else { self.after_bos(whole) };
        let boundary_mismatch = !whole.starts_with(prompt_ids);
        let start = prompt_ids.len() - usize::from(boundary_mismatch && !separate);
        let mut ids = if separate { self.ids(completion) } else { whole.get(start..).unwrap_or_default().to_vec() };
        if separate || ids.last() != Some(&self.eos) {
            ids.push(self.eos);
        }
        JointCompletion { ids, boundary_mismatch }
    }

    fn joint(&self, prompt: &str, prompt_ids: &[u32], completion: &str) -> JointCompletion {
        let mut whole = format!("{prompt}{completion}");
        if !self.templated && !completion.ends_with(&self.eos_text) {
            whole.push_str(&self.eos_text);
        }
        let whole = self.encode(&whole, !self.templated);
        let boundary_mismatch = !whole.starts_with(prompt_ids);
        let mut ids = whole.get(prompt_ids.len()..).unwrap_or_default().to_vec();
        // A tokenizer may not know its own EOS as a text.
        if !self.templated && ids.last() != Some(&self.eos) {
            ids.push(self.eos);
        }
        JointCompletion { ids, boundary_mismatch }
    }

    /// The ids of a prompt and of each of its completions.
    ///
    /// By `walk_back` the prompt ends before a token that reaches over the boundary. Where it does so in one completion alone, TRL gives the
    /// sides two prompts; here they have the shorter one, and the other completion begins with the prompt's last token.
    pub fn sequences<const N: usize>(&self, prompt: &str, completions: [&str; N]) -> (Vec<u32>, [Vec<u32>; N]) {
        let mut ids = self.prompt(prompt);
        let found = completions.map(|completion| self.completion(prompt, &ids, completion));
        let walks = self.tokenization == Tokenization::WalkBack && found.iter().any(|found| found.boundary_mismatch);
        let last = if walks { ids.pop() } else { None };
        let whole = |found: JointCompletion| {
            let missing = last.filter(|_| !found.boundary_mismatch);
            missing.into_iter().chain(found.ids).collect()
        };
        (ids, found.map(whole))
    }

    pub fn pair(&self, pair: &Pair) -> TokenizedPair {
        let (prompt, [chosen, rejected]) = self.sequences(&pair.prompt, [&pair.chosen, &pair.rejected]);
        TokenizedPair { id: pair.id.clone(), prompt_id: pair.prompt_id.clone(), chosen, rejected, prompt }
    }

    pub fn example(&self, demonstration: &Demonstration) -> TokenizedExample {
        let (prompt, [completion]) = self.sequences(&demonstration.prompt, [&demonstration.completion]);
        TokenizedExample { prompt_id: demonstration.prompt_id.clone(), completion, prompt }
    }

    /// The text of ids, special tokens left out. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        // Ids above the vocabulary (padded embeddings) have no text, and the crate skips them.
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// The text that `ids` add after `prompt`. Differs from `decode(ids)` for tokenizers that drop a text's first space.
    pub fn decode_after(&self, prompt: &[u32], ids: &[u32]) -> String {
        let before = self.decode(prompt);
        let whole = self.decode(&[prompt, ids].concat());
        whole.strip_prefix(&before).map_or_else(|| self.decode(ids), str::to_owned)
    }
}

/// Where the special tokens are looked up, in this order.
struct Sources<'a> {
    config: Option<(PathBuf, Value)>,
    model: Option<(PathBuf, Value)>,
    tokenizer: &'a Tokenizer,
}

impl Sources<'_> {
    /// The id of `bos`, `eos` or `unk`.
    fn id(&self, name: &str) -> Result<Option<u32>> {
        if let Some((path, config)) = &self.config {
            let field = format!("{name}_token");
            let value = &config[&field];
            let text = value.as_str().or_else(|| value["content"].as_str());
            match text {
                Some(text) => {
                    let missing =
                        || Error::input(format!("{field} is \"{text}\", which tokenizer.json doesn't have")).in_file(path);
                    return self.tokenizer.token_to_id(text).map(Some).ok_or_else(missing);
                }
                None if value.is_null() => {}
                None => {
                    return Err(Error::input(format!("{field} is neither a text nor an added token: {value}")).in_file(path));
                }
            }
        }
        let Some((path, model)) = &self.model else { return Ok(None) };
        let field = format!("{name}_token_id");
        let value = &model[&field];
        if value.is_null() {
            return Ok(None);
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let known = id.filter(|&id| self.tokenizer.id_to_token(id).is_some());
        known.map(Some).ok_or_else(|| {
            Error::input(format!("{field} is {value}, which is no single id of tokenizer.json"))
                .in_file(path)
                .help(format!("name the token as \"{name}_token\" in tokenizer_config.json"))
        })
    }
}

fn parse(bytes: Option<&[u8]>, path: PathBuf) -> Result<Option<(PathBuf, Value)>> {
    let Some(bytes) = bytes else { return Ok(None) };
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some((path, value))),
        Ok(_) => Err(Error::input("a JSON object is expected").in_file(path)),
        Err(e) => Err(Error::input(format!("this is no JSON: {e}")).at_line(path, e.line())),
    }
}

fn trained<S: AsRef<str>>(corpus: &[S], vocab_size: usize) -> tokenizers::Result<Vec<u8>> {
    let special = |text: &str| AddedToken::from(text, true);
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    tokenizer.with_pre_tokenizer(Some(bytes));
    tokenizer.with_decoder(Some(bytes));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![special(PAD), special(BOS), special(EOS)])
        .build()
        .into();
    let texts: Vec<&str> = corpus.iter().map(AsRef::as_ref).collect();
    tokenizer.train(&mut trainer, texts.into_iter())?;
    let with_bos = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))?
        .try_pair(format!("{BOS} $A {BOS} $B:1"))?
        .special_tokens(vec![(BOS, 1)])
        .build()?;
    tokenizer.with_post_processor(Some(with_bos));
    Ok(tokenizer.to_string(false)?.into_bytes())
}

/// The crate's trainer keeps candidates in a heap, ordered by count and pair, filled from hash maps. Its result depends on
/// the hash order only if one pair stands in the heap twice, which takes a token made by two different merges.
fn check_routes(json: &[u8]) -> Result<()> {
    let value: Value = serde_json::from_slice(json).expect("tokenizers writes JSON");
    let merges = value["model"]["merges"].as_array().map_or(0, Vec::len);
    let vocabulary = value["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
    if vocabulary == SMALLEST_VOCABULARY + merges {
        Ok(())
    } else {
        Err(Error::unexpected("this corpus makes one token by two merges, so the trained tokenizer may differ from run to run")
            .help("choose another seed or vocab_size"))
    }
}

#[cfg(test)]
mod tests;
