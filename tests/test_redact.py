"""Secrets are masked before anything is kept; ordinary code is left as it is.

Every secret here is made while the test runs, from a seeded generator: none stands in this file.
"""

from __future__ import annotations

import base64
import random
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops.redact import UNREADABLE, Redactor, clean_url, known_secrets, secret_name

ALNUM = string.ascii_letters + string.digits


class Make:
    """Synthetic secrets of the shapes that services issue."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, length: int, alphabet: str = ALNUM) -> str:
        text = "".join(self.random.choices(alphabet, k=length - 3))
        at = self.random.randrange(len(text) + 1)
        return text[:at] + "".join(c for c in ("7", "q", "4") if c in alphabet).ljust(3, alphabet[0]) + text[at:]

    def hex(self, length: int) -> str:
        return "".join(self.random.choices("0123456789abcdef", k=length))

    def upper(self, length: int) -> str:
        return "".join(self.random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=length))

    def jwt(self) -> str:
        def part(length: int) -> str:
            return base64.urlsafe_b64encode(self.random.randbytes(length)).decode().rstrip("=")

        head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
        return f"{head}.{part(48)}.{part(32)}"

    def words(self) -> str:
        return " ".join(self.random.sample("correct horse battery staple orange window river kettle".split(), 4))


def pem(m: Make) -> tuple[str, list[str]]:
    lines = [base64.b64encode(m.random.randbytes(48)).decode() for _ in range(6)]
    dash = "-" * 5
    body = "\n".join(lines)
    return f'key = """{dash}BEGIN RSA PRIVATE KEY{dash}\n{body}\n{dash}END RSA PRIVATE KEY{dash}"""', lines


def one(template: str, make: Callable[[Make], str]) -> Callable[[Make], tuple[str, list[str]]]:
    def build(m: Make) -> tuple[str, list[str]]:
        secret = make(m)
        return template.replace("@@", secret), [secret]

    return build


def two(template: str, make: Callable[[Make], str]) -> Callable[[Make], tuple[str, list[str]]]:
    def build(m: Make) -> tuple[str, list[str]]:
        a, b = make(m), make(m)
        return template.replace("@1", a).replace("@2", b), [a, b]

    return build


def pw(m: Make) -> str:
    return m.some(14)


CATEGORIES: dict[str, Callable[[Make], tuple[str, list[str]]]] = {
    "aws key id": one('boto3.client("s3", "@@")', lambda m: "AKIA" + m.upper(16)),
    "aws secret": one('aws_secret_access_key = "@@"', lambda m: m.some(40, ALNUM + "/+")),
    "aws credentials file": one("[default]\naws_secret_access_key = @@\nregion = eu-west-1", lambda m: m.some(40)),
    "gcp api key": one("maps.Client('@@')", lambda m: "AIza" + m.some(35)),
    "gcp oauth": one("print('ya29.@@')", lambda m: m.some(60)),
    "azure client secret": one("cred = make('@@')", lambda m: m.some(3) + "8Q~" + m.some(34)),
    "azure connection string": one(
        'conn = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=@@;EndpointSuffix=core.windows.net"',
        lambda m: base64.b64encode(m.random.randbytes(64)).decode(),
    ),
    "azure sas": one(
        "u = 'https://acc.blob.core.windows.net/c/f.csv?sv=2022-11-02&sig=@@&se=2030-01-01'",
        lambda m: m.some(43) + "%3D",
    ),
    "github classic": one("g = Github('@@')", lambda m: "ghp_" + m.some(36)),
    "github fine": one("!gh auth login @@", lambda m: "github_pat_" + m.some(22) + "_" + m.some(59)),
    "gitlab": one("gl = Gitlab(url, '@@')", lambda m: "glpat-" + m.some(20)),
    "hugging face": one("login('@@')", lambda m: "hf_" + "".join(m.random.choices(string.ascii_letters, k=34))),
    "openai project": one("client = OpenAI('@@')", lambda m: "sk-proj-" + m.some(48)),
    "openai classic": one("openai.login('@@')", lambda m: "sk-" + m.some(48)),
    "anthropic": one("c = Anthropic('@@')", lambda m: "sk-ant-api03-" + m.some(80)),
    "slack bot": one("WebClient('@@')", lambda m: "xoxb-" + m.some(12, string.digits) + "-" + m.some(24)),
    "slack webhook": one(
        "post('https://hooks.slack.com/services/@@')", lambda m: f"T{m.upper(8)}/B{m.upper(8)}/{m.some(24)}"
    ),
    "pypi": one("!twine upload -x @@", lambda m: "pypi-AgEIcHlwaS5vcmc" + m.some(70)),
    "databricks": one("connect('@@')", lambda m: "dapi" + m.hex(32)),
    "stripe": one("pay('@@')", lambda m: "sk_" + "live_" + m.some(24)),
    "npm": one("//registry.example.org/:_authToken=@@", lambda m: "npm_" + m.some(36)),
    "sendgrid": one("SendGrid('@@')", lambda m: "SG." + m.some(22) + "." + m.some(43)),
    "telegram": one("Bot('@@')", lambda m: m.some(10, string.digits) + ":AA" + m.some(33)),
    "digitalocean": one("do('@@')", lambda m: "dop_" + "v1_" + m.hex(64)),
    "vault": one("hvac.Client(url, '@@')", lambda m: "hvs." + m.some(90)),
    "groq": one("Groq('@@')", lambda m: "gsk_" + m.some(52)),
    "unprefixed hex": one('wandb.login(key="@@")', lambda m: m.hex(40)),
    "jwt": one("decode('@@')", lambda m: m.jwt()),
    "pem": pem,
    "basic header": one("h = {'X': 'Basic @@'}", lambda m: base64.b64encode(m.some(24).encode()).decode()),
    "bearer header": one("headers = {'Authorization': f'Bearer @@'}", lambda m: m.some(30)),
    "curl header": one("!curl -H 'Authorization: token @@' https://api.example.org", lambda m: m.some(40)),
    "curl user": one("!curl -u me:@@ https://api.example.org", pw),
    "api key header": one('!curl -H "X-Api-Key: @@" https://api.example.org', lambda m: m.some(32)),
    "postgres url": one('create_engine("postgresql://ana:@@@db.example.org:5432/d")', pw),
    "mongo url": one("MongoClient('mongodb+srv://ana:@@@c.example.net/?retryWrites=true')", pw),
    "odbc": one('c = connect("Driver={ODBC};Server=s;Database=d;Uid=ana;Pwd=@@;")', pw),
    "odbc long": one('c = connect("Driver={ODBC};Server=s;User ID=ana;Password=@@;Encrypt=yes")', pw),
    "url query token": one("requests.get('https://api.example.org/v1?access_token=@@&page=2')", lambda m: m.some(32)),
    "jupyter token": one("http://localhost:8888/lab?token=@@", lambda m: m.hex(48)),
    "pip index": one("%pip install --index-url https://bob:@@@pypi.example.org/simple x", pw),
    "git remote token": one("!git clone https://@@@example.org/o/r.git", lambda m: m.some(40)),
    "shell export": one("!export DB_PASSWORD=@@", pw),
    "shell variable": one("%%bash\nAPI_TOKEN=@@ ./run.sh", lambda m: m.some(24)),
    "magic env": one("%env OPENAI_API_KEY=@@", lambda m: m.some(32)),
    "shell option": one("!tool --password @@ --verbose", pw),
    "shell option with =": one("!tool --api-key=@@", lambda m: m.some(32)),
    "dotenv": one("HOST=localhost\nSECRET_KEY=@@\nDEBUG=1", lambda m: m.some(32)),
    "os.environ": one('os.environ["MY_SECRET"] = "@@"', pw),
    "setdefault": one('os.environ.setdefault("HF_TOKEN", "@@")', lambda m: m.some(34)),
    "getenv default": one('t = os.getenv("SERVICE_TOKEN", "@@")', lambda m: m.some(24)),
    "dict": one('config = {"user": "ana", "password": "@@"}', pw),
    "subscript": one("cfg['db']['passwd'] = '@@'", pw),
    "keyword": one("connect(host='h', password='@@')", pw),
    "attribute": one("self.api_key = '@@'", lambda m: m.some(20)),
    "annotated": one('password: str = "@@"', pw),
    "walrus": one('if (secret := "@@"):', pw),
    "json": one('{"client_id": "web", "client_secret": "@@"}', lambda m: m.some(24)),
    "json in json": one(r'"{\"db\": {\"password\": \"@@\"}}"', pw),
    "yaml": one("database:\n  user: ana\n  password: @@\n  port: 5432", pw),
    "yaml words": one('db:\n  password: "@@"', lambda m: m.words()),
    "papermill parameter": one('papermill in.ipynb out.ipynb -p db_password "@@"', pw),
    "environment dump": one("HOME=/home/ana\nWANDB_API_KEY=@@\nLANG=C", lambda m: m.hex(40)),
    "environment dump, dict": one("environ({'HOME': '/home/ana', 'GITHUB_TOKEN': '@@'})", lambda m: m.some(40)),
    "passphrase": one("passphrase = '@@'", lambda m: m.words()),
    "camel case": one("const apiKey = '@@';", lambda m: m.some(24)),
    "halves": two('password = "@1" + "@2"', lambda m: m.some(9)),
    "halves in parentheses": two('api_key = (\n    "@1"\n    "@2"\n)', lambda m: m.some(16)),
    "f-string": one('password = f"{prefix}@@"', pw),
    "bytes": one("secret_key = b'@@'", pw),
    "multi-line": two('credentials = """\n@1\n@2\n"""', lambda m: m.some(20)),
    "auth pair": one("requests.get(url, auth=('ana', '@@'))", pw),
    "sql": one("ALTER USER ana WITH PASSWORD '@@'", pw),
    "traceback": one("OperationalError: (postgresql://ana:@@@db/d) connection refused", pw),
    "notebook metadata": one('{"metadata": {"papermill": {"parameters": {"api_token": "@@"}}}}', lambda m: m.some(24)),
    "widget state": one('{"state": {"model": {"description": "Password", "password": "@@"}}}', pw),
    "cookie": one('headers = {"Cookie": "@@"}', lambda m: "session=" + m.some(40)),
    "netrc": one("machine api.example.org login ana password @@", pw),
    "docker": one("!docker login -u ana --password @@ reg.example.org", pw),
}  # fmt: skip


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


def test_at_least_95_percent_of_synthetic_secrets_in_33_or_more_categories_are_masked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    repeats, missed, total = 20, {}, 0
    for name, build in CATEGORIES.items():
        for seed in range(repeats):
            text, values = build(Make(seed * 1000 + len(name)))
            masked, count = Redactor().text(text)
            total += 1
            if any(value in masked for value in values) or not count:
                missed.setdefault(name, []).append(seed)
    lost = sum(map(len, missed.values()))
    with capsys.disabled():
        print(f"\nsecrets · {len(CATEGORIES)} categories × {repeats} · recall {1 - lost / total:.2%} · goal ≥ 95 %")
        for name, seeds in missed.items():
            print(f"  missed {len(seeds)}/{repeats}: {name}")
    assert len(CATEGORIES) >= 33
    assert lost / total <= 0.05
    assert sum(len(seeds) == repeats for seeds in missed.values()) / len(CATEGORIES) <= 0.05


BENIGN = r"""
import os
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
tokens = tokenizer("hello world", max_length=128, truncation=True)
max_tokens = 4096
n_tokens = len(tokens["input_ids"])
num_tokens: int = 0
pad_token = "[PAD]"
eos_token="</s>"
tokenizer.pad_token = tokenizer.eos_token
special_tokens_dict = {"additional_special_tokens": ["<a>", "<b>"]}
mask_token = "<mask>"
unk_token: str = "[UNK]"
token = tokens[0]
for token in doc: print(token.text, token.pos_)
token_count = Counter(token.lower() for token in tokens)
token_type_ids = batch["token_type_ids"]
api_key = os.environ["OPENAI_API_KEY"]
api_key = os.environ.get("OPENAI_API_KEY")
api_key=os.getenv("OPENAI_API_KEY", "")
password = getpass.getpass("Password: ")
password = getpass("Enter your password")
password = input("password? ")
token = os.environ['HF_TOKEN']
client = OpenAI(api_key=api_key)
client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])
secret = dbutils.secrets.get(scope="prod", key="db-password")
secret_name = "prod/db"
SECRET_NAME = "projects/p/secrets/db/versions/latest"
credentials_path = Path.home() / ".config" / "creds.json"
credentials = service_account.Credentials.from_service_account_file(path)
password_column = "pw"
df.drop(columns=["password", "email"], inplace=True)
df = df.rename(columns={"pwd": "password"})
df["password"].isna().sum()
print("password" in df.columns)
features = ["token", "length", "label"]
df.groupby("token")["count"].sum()
df.groupby(["token", "year"]).size()
df.sort_values(by="token", ascending=False)
primary_key = "flight_id"
sort_key = ["year", "month", "day"]
key = lambda row: row["dep_delay"]
sorted(items, key=lambda kv: kv[1])
keys = list(d.keys())
foreign_key = "carrier_code"
partition_key="year=2013/month=01/day=01"
cache_key = f"{carrier}-{origin}-{dest}"
auth = HTTPBasicAuth(user, password)
requests.get(url, auth=(user, password))
requests.get(url, headers={"Authorization": f"Bearer {token}"})
headers = {"Authorization": "Bearer " + token}
headers = {'Accept': 'application/json', 'User-Agent': 'curl/8.0'}
author = "Ada Lovelace"
authors: list[str] = ["Ada", "Grace"]
authentication = "none"
auth_required = True
use_auth_token=True
secrets.token_hex(16)
import secrets
rng = np.random.default_rng(seed=20240101)
sha = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
md5 = "d41d8cd98f00b204e9800998ecf8427e"
commit = "632aa7b4c5e3068c0151b5274e363fc4ff8185e3"
digest = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
run_id = "3f2b8c1e9d4a4f6b8e7c5d2a1b0c9f8e"
uuid = "550e8400-e29b-41d4-a716-446655440000"
cell_id = "a1b2c3d4"
"id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
img = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kg=="
"image/png": "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzkAAAAOXRFWHRTb2Z0d2FyZQBNYXRwbG90bGliIHZlcnNpb24zLjguMA",
integrity = "sha512-9NET910DNaIPngYnLLPeg+Ogzqsi9uM4mSboU5y6p8S5DzMTVEsJZrawi+BoDNUVBa2DhJqQYUFvMDfgU062LQ=="
df = pd.read_csv("data/flights.csv", parse_dates=["time_hour"])
df = pd.read_csv("https://example.org/data/flights.csv?year=2013&format=csv")
df = pd.read_parquet("s3://bucket/path/part-0000.parquet")
df = pd.read_sql("select * from users where token is not null", con)
engine = create_engine("sqlite:///data/app.db")
engine = create_engine("postgresql://localhost/db")
engine = create_engine(f"postgresql://{user}:{password}@{host}/db")
url = "https://github.com/org/repo.git"
url = "git@github.com:org/repo.git"
!git clone ssh://git@github.com/org/repo.git
!pip install -r requirements.txt
%pip install 'pandas>=2.2'
%load_ext jupyter_mlops
%env OMP_NUM_THREADS=4
!export PATH=$PATH:/opt/bin
!export API_KEY=$OPENAI_API_KEY
API_KEY=${OPENAI_API_KEY}
password: ${DB_PASSWORD}
password: "{{ vault_password }}"
password = "<your password>"
api_key = "your-api-key-here"
api_key = "YOUR_API_KEY"
token = "xxxxxxxx"
password = "********"
password = ""
password = None
password: str | None = None
def connect(user: str, password: str) -> Connection:
def login(password: str = "", token: Optional[str] = None):
class Token(NamedTuple):
class PasswordField(Field):
if token is None:
if token == "the":
if token == "(":
while token != "EOF":
assert secret is not None
if not password:
raise ValueError("password must not be empty")
parser.add_argument("--token", help="access token")
parser.add_argument("--password", required=True)
@click.option("--api-key", envvar="API_KEY")
help="the API key to use"
st.text_input("Password", type="password", key="password")
widgets.Password(description="Password:")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
model.fit(X_train, y_train)
scores = cross_val_score(model, X, y, cv=5, scoring="roc_auc")
print(f"accuracy: {accuracy_score(y_test, y_pred):.4f}")
GridSearchCV(model, {"learning_rate": [0.01, 0.1], "max_depth": [3, 5]}, n_jobs=2)
ColumnTransformer([("cat", OneHotEncoder(handle_unknown="ignore"), ["carrier", "origin"])])
df["dep_hour"] = df["sched_dep_time"] // 100
df = df.merge(weather, on=["origin", "time_hour"], how="left")
df.groupby("carrier")["arr_delay"].agg(["mean", "std", "count"])
df.query("dep_delay > 15 and carrier == 'UA'")
df.pivot_table(index="month", columns="origin", values="dep_delay")
df.loc[df["tailnum"] == "N14228", "dest"]
df.to_parquet("out/features.parquet", compression="zstd")
df.describe(include="all").T
np.testing.assert_allclose(a, b, rtol=1e-5)
x = np.linspace(0, 1, 101)
arr = np.zeros((3, 4), dtype=np.float32)
plt.plot(history.history["loss"], label="train")
plt.savefig("figures/loss.png", dpi=150)
fig, ax = plt.subplots(figsize=(8, 4))
torch.manual_seed(0)
torch.save(model.state_dict(), "model.pt")
loss = F.cross_entropy(logits, labels, ignore_index=-100)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
attention_mask = (input_ids != tokenizer.pad_token_id).long()
key_padding_mask = ~attention_mask.bool()
query, key, value = self.qkv(x).chunk(3, dim=-1)
q, k, v = key @ w_q, key @ w_k, key @ w_v
jax_key = jax.random.PRNGKey(42)
key, subkey = jax.random.split(key)
self.key_proj = nn.Linear(dim, dim)
mlflow.log_param("max_tokens", 256)
mlflow.set_tracking_uri("http://localhost:5000")
wandb.init(project="flights", config={"lr": 0.1})
log_metric("auc", 0.91)
response = client.chat.completions.create(model="gpt-4o", max_tokens=100, temperature=0)
usage = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
{"object": "list", "token": "hello", "logprob": -0.1}
token_embeddings = nn.Embedding(30522, 768)
bos_token_id: 50256
"next_token": "world",
stop_token = "\n"
tokenize.tokenize(readline)
json.loads('{"key": "value"}')
{"key": "carrier", "value": "UA"}
config = {"key": "dep_delay", "agg": "mean"}
config.get("timeout", 30)
settings.configure(SECRET_KEY=env("SECRET_KEY"))
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
AWS_REGION = "eu-central-1"
os.environ["AWS_PROFILE"] = "research"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
boto3.client("s3", region_name="us-east-1")
task-risk-disk-mask-flask-desk-2024-01-01-report
sk-learn-style-name-for-a-branch-with-words
risk_score = model.predict_proba(X)[:, 1]
path = "/home/user/data/2013-01-01T05:00:00Z/part-00000-of-00010.parquet"
version = "1.26.4+cu118.post3"
Successfully installed numpy-2.1.3 pandas-3.0.0 python-dateutil-2.9.0.post0
Epoch 10/10 - loss: 0.0312 - val_loss: 0.0419 - 12s 34ms/step
Traceback (most recent call last):
KeyError: 'password'
AttributeError: 'NoneType' object has no attribute 'token'
ValueError: could not convert string to float: 'N14228'
File "/usr/lib/python3.11/site-packages/pandas/core/frame.py", line 1234, in __getitem__
Basic understanding of the data
Basic authentication is not supported here
Bearer tokens are described in the manual
The secret: patience and good data.
# the password is read from the environment
# TODO: rotate the token every month
"The token limit is 4096 tokens per request."
secretary = df[df.title == "secretary"]
passenger_count = 3
passwordless = True
compass = "north"
bypass = True
n_pass = 2
first_pass = run(step)
low_pass = butter(4, 0.1)
monkey = "capuchin"
donkey: str = "burro2024animal"
keyboard = "qwerty"
keyword = "delay"
cookiecutter = "template"
autoscale = "auto"
authority = "FAA"
author_email = "ada@example.org"
mailto:ada@example.org
latin = "Lorem ipsum dolor sit amet, consectetur adipiscing elit"
password_hint = "first pet"
password_min_length = 12
password_regex = r"^(?=.*[A-Z])(?=.*\d).{8,}$"
token_url = "https://auth.example.org/oauth/token"
TOKEN_EXPIRY = 3600
access_token_ttl: 3600
is_secret = True
has_password: true
secret_count: 3
auth_method = "basic"
authorization_endpoint = "https://auth.example.org/authorize"
lambda token: token.isalpha()
{token: i for i, token in enumerate(vocab)}
vocab = {"token": 0, "secret": 1, "password": 2}
id2token = {v: k for k, v in vocab.items()}
dtype={"password": "string", "token": "category"}
token=token,
password=password,
api_key=self.api_key,
(token=tok, secret=sec)
"""


def benign() -> list[str]:
    return [line for line in BENIGN.splitlines() if line]


def test_at_most_one_percent_of_ordinary_lines_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = benign()
    wrong = [(line, masked) for line in lines for masked, count in [Redactor().text(line)] if count]
    with capsys.disabled():
        print(f"\nsecrets · {len(lines)} ordinary lines · false positives {len(wrong) / len(lines):.2%} · goal ≤ 1 %")
        for line, masked in wrong:
            print(f"  masked: {line[:80]} -> {masked[:80]}")
    assert len(lines) >= 200
    assert len(wrong) / len(lines) <= 0.01


def test_ordinary_lines_together_in_one_cell_are_left_as_they_are() -> None:
    text = "\n".join(line for line in benign() if not Redactor().text(line)[1])
    masked, count = Redactor().text(text)
    assert (masked, count) == (text, 0)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "jupyter_mlops").rglob("*.py")), ids=lambda p: p.stem
)
def test_our_own_source_is_hardly_masked(path: Path) -> None:
    lines = path.read_text().splitlines()
    wrong = sum(Redactor().text(line)[1] for line in lines)
    assert wrong <= max(1, len(lines) // 100)


def test_a_known_value_is_masked_wherever_it_stands(tmp_path: Path) -> None:
    value = Make(1).some(12)
    redactor = Redactor(known_secrets({"DB_PASSWORD": value, "SHELL": "/bin/sh"}))
    for text in (f"print('{value}')", value, f"x{value}y", f"a\n{value}\nb", value * 2):
        masked, count = redactor.text(text)
        assert value not in masked
        assert count
    assert "<redacted:known:1>" in redactor.text(value)[0]


def test_a_known_value_is_masked_in_a_url_in_base64_and_line_by_line() -> None:
    value = Make(2).some(12) + "/ä+"
    redactor = Redactor([value])
    from urllib.parse import quote

    for spelled in (quote(value, safe=""), base64.b64encode(value.encode()).decode().rstrip("="), value.encode().hex()):
        assert spelled not in redactor.text(f"x = '{spelled}'")[0]
    _, lines = pem(Make(3))
    redactor = Redactor(["\n".join(lines)])
    assert lines[2] not in redactor.text(f"a {lines[2]} b")[0]


def test_values_that_overlap_leave_nothing_of_either() -> None:
    redactor = Redactor(["abcd1234efgh", "efgh5678ijkl"])
    assert redactor.text("-abcd1234efgh5678ijkl-")[0].startswith("-<redacted:known:")
    assert "ijkl" not in redactor.text("-abcd1234efgh5678ijkl-")[0]


def test_a_short_word_that_is_a_password_masks_itself_and_not_longer_words() -> None:
    redactor = Redactor(["summer"])
    assert redactor.text("summertime = 1") == ("summertime = 1", 0)
    assert redactor.text("connect('summer')")[1] == 1


def test_a_password_that_is_the_word_password_does_not_mask_code() -> None:
    redactor = Redactor(known_secrets({"DB_PASSWORD": "password"}))
    assert redactor.text("def login(password): ...")[1] == 0


def test_the_same_value_has_the_same_number_and_another_value_another() -> None:
    m = Make(4)
    first, second = pw(m), pw(m)
    masked, count = Redactor().text(f"password = '{first}'\nsecret = '{second}'\npasswd = '{first}'")
    assert count == 3
    assert (
        masked
        == "password = '<redacted:assigned:1>'\nsecret = '<redacted:assigned:2>'\npasswd = '<redacted:assigned:1>'"
    )


def test_a_masked_text_is_left_as_it_is() -> None:
    redactor = Redactor()
    for build in CATEGORIES.values():
        masked, _ = redactor.text(build(Make(5))[0])
        assert redactor.text(masked) == (masked, 0), masked


def test_what_getpass_returned_is_masked_from_then_on() -> None:
    redactor = Redactor()
    value = Make(6).some(10)
    assert redactor.text(value)[1] == 0
    redactor.learn(value)
    assert redactor.text(value)[1] == 1


def test_a_text_that_cannot_be_searched_is_withheld_whole(redactor: Redactor) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise MemoryError

    redactor._pattern = Broken()  # type: ignore[assignment]
    assert redactor.text("x = 1") == (UNREADABLE, 1)
    assert redactor.value(["x = 1", 2]) == ([UNREADABLE, 2], 1)


def test_no_text_is_returned_for_what_is_no_text(redactor: Redactor) -> None:
    assert redactor.text(None) == (UNREADABLE, 1)  # type: ignore[arg-type]


HOSTILE = (
    "a", "1", " ", ".", '"', "\\", "İ", "password=\"", "password='", 'password="""', "password=(", "password: ",
    "token", "token ",
    "://", "://a@", "://a:b@", "AKIA", "eyJ", "eyJ.", "sk-", "hf_", "SG.", "glpat-", "Q~", "1Q~", ":AA",
    "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "bearer ", "basic ", "auth=(", "auth=(a,", "?sig=", "&key=", "key=x,",
    'password="{a', " -u a:", "--password ", "authorization:", "authorization: aaa ", "login a password ", "secret_",
    "password", "passwd = f'{", "{", "key: ", 'setdefault("token", ', "\n", "password='a' + ", "PuTTY-User-Key-File-",
    "sk-" + "a" * 25 + " ", "sk- ", "hf_" + "a" * 29 + " ", "auth=(" + "a" * 126, "auth=(a,'", "auth=httpbasicauth(",
    "&key=abcdef", "://@", "key=" + "a" * 511 + " ", "key=" + "a" * 511, "-a", "a_", "aaa ", "eyJ" + "a" * 8 + ".",
    "bearer aaaaaaaa ", "authorization: basic ", " -u " + "a" * 127, "\\x", "pat='a'", "key: " + "a" * 40, "日本",
)  # fmt: skip


@pytest.mark.timeout(100)
@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_on_one_line_takes_no_more_than_its_length(redactor: Redactor, piece: str) -> None:
    """Anything worse than linear takes minutes here, and runs into the time limit."""
    redactor.learn(Make(7).some(16))
    masked, count = redactor.text(piece * (1_000_000 // len(piece)))
    assert count == 0 or masked == UNREADABLE or "<redacted:" in masked


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("akshgpnrtSKAZ019_-. \n\\\"'é日"), max_size=30),
    st.sampled_from((" ", "_", "-", ".", '"', "\n", "\\n", "\\t", "\\r", "é", "/", "=")),
    st.sampled_from(("ghp_", "hf_", "sk-ant-", "AKIA", "npm_", "SK", "r8_", "dapi", "glpat-")),
)
def test_a_token_is_found_behind_whatever_ends_a_word(before: str, end: str, prefix: str) -> None:
    token = prefix + {"AKIA": "A2B3C4D5E6F7G2H3", "SK": "0a1b" * 8, "dapi": "0a1b" * 8}.get(
        prefix, "a1B2c3D4e" * 4 + "f"
    )
    masked, count = Redactor().text(f"{before}{end}{token} {before}")
    assert count
    assert token not in masked


@settings(max_examples=300, deadline=None)
@given(
    st.text(), st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), st.text()
)
def test_no_text_breaks_the_search_and_a_known_value_never_survives(before: str, value: str, after: str) -> None:
    redactor = Redactor([value])
    masked, count = redactor.text(f"{before} {value} {after}")
    assert type(masked) is str
    assert count
    if value.lower() not in ("password",) and "redacted" not in value and not value.isdigit():
        assert value not in masked


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("passwordtokenkey=:\"'`{}()[]\\ \n.,;@/?&-_<>0aZİ"), max_size=200))
def test_whatever_is_written_around_secret_names_the_search_ends_and_a_second_one_finds_nothing(text: str) -> None:
    redactor = Redactor()
    masked, _ = redactor.text(text)
    assert redactor.text(masked)[0] == masked


def test_nested_values_are_masked_by_their_names_and_by_what_they_hold(redactor: Redactor) -> None:
    m = Make(8)
    a, b = pw(m), "ghp_" + m.some(36)
    masked, count = redactor.value(
        {"db": {"password": a, "port": 5432, "pin": (1, 2)}, "notes": ["see " + b], "max_tokens": 7}
    )
    assert count == 2
    assert masked["db"] == {"password": "<redacted:assigned:1>", "port": 5432, "pin": (1, 2)}
    assert b not in masked["notes"][0]
    assert masked["max_tokens"] == 7
    assert redactor.value({"token": 123456})[0] == {"token": "<redacted:assigned:3>"}


def test_values_of_foreign_types_are_passed_on_untouched(redactor: Redactor) -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    value = Untouchable()
    masked, count = redactor.value([value])
    assert masked[0] is value
    assert count == 0


@pytest.mark.parametrize(
    "name",
    "password db_password PGPASSWORD passwd pwd secret client_secret SECRET_KEY api_key apikey apiKey OPENAI_API_KEY "
    "ssh_key "
    "access_key aws_access_key_id aws_secret_access_key private_key credential credentials token HF_TOKEN auth_token "
    "accessToken refresh_token auth authorization http_auth smtp_pass cookie jwt passphrase GITHUB_TOKEN".split(),
)
def test_a_secret_name(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    "SSH_AUTH_SOCK "
    "tokenizer tokens max_tokens n_tokens num_tokens pad_token eos_token token_count token_ids tokenizer_name key keys "
    "sort_key primary_key key_column monkey author authors authority password_column password_hint secret_name compass "
    "passenger n_pass first_pass df x model auth_method access_key_path credentials_file XAUTHORITY".split(),
)
def test_an_ordinary_name(name: str) -> None:
    assert not secret_name(name)


def test_a_variable_with_a_secret_name_or_value_gets_no_digest() -> None:
    m = Make(9)
    known = pw(m)
    redactor = Redactor([known])
    assert redactor.secret("password", 1)
    assert redactor.secret("x", known)
    assert redactor.secret("x", "ghp_" + m.some(36))
    assert redactor.secret("x", f"--{known}--".encode())
    assert not redactor.secret("x", "plain text")
    assert not redactor.secret("max_tokens", 5)
    assert not redactor.secret("x", object())


def test_credential_files_and_secret_variables_are_known(tmp_path: Path) -> None:
    m = Make(10)
    v = [pw(m) for _ in range(12)]
    home, folder = tmp_path / "home", tmp_path / "project"
    runtime = home / ".local/share/jupyter/runtime"
    for one in (home, folder, runtime, home / ".aws", home / ".cache/huggingface", home / ".kaggle"):
        one.mkdir(parents=True, exist_ok=True)
    (folder / ".env").write_text(
        f"# comment\nHOST=localhost\nexport DB_PASSWORD='{v[0]}'\nURL=postgres://a:{v[1]}@h/d\n"
    )
    (folder / ".env.local").write_text(f'API_TOKEN="{v[2]}"\n')
    (home / ".netrc").write_text(f"machine h login ana password {v[3]}\n")
    (home / ".git-credentials").write_text(f"https://ana:{v[4]}@example.org\n")
    (home / ".pypirc").write_text(f"[pypi]\nusername = __token__\npassword = {v[5]}\n")
    (home / ".aws/credentials").write_text(f"[default]\naws_secret_access_key = {v[6]}\n")
    (home / ".cache/huggingface/token").write_text(v[7])
    (home / ".kaggle/kaggle.json").write_text(f'{{"username": "ana", "key": "{v[8]}"}}')
    (runtime / "jpserver-1.json").write_text(f'{{"port": 8888, "token": "{v[9]}"}}')
    (home / ".pgpass").write_text(f"h:5432:d:ana:{v[10]}\n")
    environ = {"MY_SECRET": v[11], "EDITOR": "vim-basic", "GOOGLE_APPLICATION_CREDENTIALS": str(home), "DB_PASS": "ab"}
    known = known_secrets(environ, home, folder)
    assert set(v) <= set(known)
    assert not {"vim-basic", "localhost", "ab", str(home), "__token__"} & set(known)


def test_credential_files_that_are_pipes_folders_or_garbage_are_passed_over(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / ".netrc")
    (tmp_path / ".pypirc").mkdir()
    (tmp_path / ".env").write_bytes(b"\xff\xfe\0PASSWORD\n=\0" * 100)
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/kaggle.json").write_text("[" * 100_000)
    assert type(known_secrets({}, tmp_path, tmp_path)) is list


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://ana:pw@example.org:8443/a/b.csv?year=2013#top", "https://example.org:8443/a/b.csv?year=2013"),
        ("https://tok@example.org/o/r.git", "https://example.org/o/r.git"),
        ("git@github.com:org/repo.git", "github.com:org/repo.git"),
        ("ssh://git@example.org/o/r.git", "ssh://example.org/o/r.git"),
        ("postgresql+psycopg2://a:p%40w@h:5432/d?sslmode=require", "postgresql+psycopg2://h:5432/d?sslmode=require"),
        ("postgresql://a:p@ss@h/d", "postgresql://h/d"),
        ("postgresql://a:p/ss@h/d", "postgresql://h/d"),
        ("https://h/x?access_token=abc&page=2", "https://h/x?access_token=<redacted>&page=2"),
        ("https://h/x?X-Amz-Signature=abc&X-Amz-Date=2020", "https://h/x?X-Amz-Signature=<redacted>&X-Amz-Date=2020"),
        ("s3://bucket/key.parquet", "s3://bucket/key.parquet"),
        ("file:///data/x.csv", "file:///data/x.csv"),
        ("/plain/path@v2.csv", "/plain/path@v2.csv"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://a:b@[::1]:80/x", "https://[::1]:80/x"),
        ("", ""),
    ],
)
def test_an_address_loses_its_credentials_and_keeps_the_rest(url: str, clean: str) -> None:
    assert clean_url(url) == clean


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text(alphabet=ALNUM, min_size=6, max_size=20))
def test_no_address_keeps_a_password(path: str, password: str) -> None:
    password = "Z9" + password
    cleaned = clean_url(f"https://ana:{password}@host.example/{path.replace(password, '')}")
    assert password not in cleaned


def test_ordinary_cells_cost_little(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, never judged: the bench has the figures that count."""
    redactor = Redactor([Make(11).some(20) for _ in range(20)])
    began = time.perf_counter()
    for line in benign():
        redactor.text(line)
    with capsys.disabled():
        print(
            f"\nsecrets · per ordinary line {(time.perf_counter() - began) / len(benign()) * 1e6:.1f} µs · "
            "goal ≤ 500 µs"
        )
    assert redactor.text("x = 1") == ("x = 1", 0)
