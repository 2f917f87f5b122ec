"""The official OpenAI SDK's videos, unmodified, at the gateway: made by a worker, of either protocol that has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.gateway_server import PRICES, GatewayServer, gateway_server, run, told
from tests.worker_process import WorkerProcess, wait_finished, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

MODELS = ("oai:video-1", "goo:video-1")
PRICE = PRICES["video-1"]["SECONDS"] / 1_000_000
FAST: Any = {"poll_interval_ms": 50}


@pytest.fixture(scope="module")
def gateway(
    server_dsn: str, template_database: str, emulator_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    data_dir: Path = tmp_path_factory.mktemp("gateway") / "data"
    with gateway_server(server_dsn, template_database, emulator_url, data_dir) as server:
        for provider in ("oai", "goo", "narrow"):
            server.emulator.configure(provider, job_polls=1)
        keys = {f"{provider}_API_KEY": "a-secret-key" for provider in ("OAI", "GOO", "NARROW", "ANT")}
        with WorkerProcess(server.dsn, **keys):
            yield server


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def made(gateway: GatewayServer) -> dict[str, str]:
    """The id of a video of each model, which is there."""
    with OpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0) as client:
        videos = {model: client.videos.create(model=model, prompt="A cat runs.", seconds="8").id for model in MODELS}
        run(wait_finished(gateway.dsn, list(videos.values())))
        return videos


def row_of(gateway: GatewayServer, id: str) -> Any:
    (row,) = gateway.rows("SELECT * FROM model_requests WHERE id = $1", id)
    return row


@pytest.mark.parametrize("model", MODELS)
def test_a_video_is_made_polled_fetched_and_deleted(gateway: GatewayServer, client: OpenAI, model: str) -> None:
    video = client.videos.create_and_poll(model=model, prompt="A cat runs.", seconds="8", size="1280x720", **FAST)
    assert (video.object, video.status, video.progress, video.model) == ("video", "completed", 100, model)
    assert (video.prompt, video.seconds, video.size, video.error) == ("A cat runs.", "8", "1280x720", None)
    assert video.completed_at is not None
    assert video.completed_at >= video.created_at
    content = client.videos.download_content(video.id)
    assert content.content[4:8] == b"ftyp"
    assert content.response.headers["content-type"] == "video/mp4"
    deleted = client.videos.delete(video.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (video.id, "video.deleted", True)
    for gone in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
        with pytest.raises(openai.NotFoundError):
            gone(video.id)
    assert video.id not in [other.id for other in client.videos.list()]
    # The account stays.
    row = row_of(gateway, video.id)
    assert (row["status"], row["output"], row["seconds"]) == ("COMPLETED", None, 8)
    assert gateway.rows("SELECT * FROM ledger_entries WHERE request_id = $1", video.id)


@pytest.mark.parametrize("model", MODELS)
async def test_async_clients_are_served_alike(gateway: GatewayServer, model: str) -> None:
    async with AsyncOpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0) as client:
        video = await client.videos.create(model=model, prompt="A dog runs.", seconds="4")
        # A worker may have taken it already.
        assert video.status in ("queued", "in_progress")
        assert (video.progress, video.completed_at) == (0, None)
        video = await client.videos.poll(video.id, **FAST)
        assert video.status == "completed"
        assert (await client.videos.retrieve(video.id)).seconds == "4"
        async with client.videos.with_streaming_response.download_content(video.id, variant="video") as content:
            data = b"".join([piece async for piece in content.iter_bytes()])
        assert data[4:8] == b"ftyp"
        assert video.id in [other.id async for other in client.videos.list(limit=1)]
        assert (await client.videos.delete(video.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.videos.retrieve(video.id)


@pytest.mark.parametrize("model", MODELS)
def test_a_video_costs_its_seconds_times_the_price_exactly(
    gateway: GatewayServer, client: OpenAI, made: dict[str, str], model: str
) -> None:
    raw = client.videos.with_raw_response.retrieve(made[model])
    row, served = row_of(gateway, made[model]), gateway.served(made[model], model.partition(":")[0])
    assert (row["operation"], row["owner_id"], row["usage_estimated"]) == ("VIDEO", None, False)
    assert row["seconds"] == served["seconds"] == 8
    assert row["cost_total"] == 8 * PRICE
    assert raw.headers["x-tollgate-cost"] == "0.8000000000000008"
    assert raw.headers["x-tollgate-request-id"] == made[model]
    lines = gateway.rows("SELECT unit::text, quantity, amount FROM ledger_entries WHERE request_id = $1", made[model])
    assert [tuple(line) for line in lines] == [("SECONDS", 8, 8 * PRICE)]


@pytest.mark.parametrize("model", MODELS)
def test_a_video_begins_with_an_image(gateway: GatewayServer, client: OpenAI, model: str) -> None:
    image = ("cat.png", b"\x89PNG", "image/png")
    video = client.videos.create_and_poll(model=model, prompt="It runs.", input_reference=image, **FAST)
    assert video.status == "completed"
    kept = json.loads(row_of(gateway, video.id)["payload"])
    assert kept["image"] == {"type": "image", "data": "iVBORw==", "media_type": "image/png"}


def test_json_is_taken_as_well_as_a_form(gateway: GatewayServer) -> None:
    body = {"model": "oai:video-1", "prompt": "A cat runs.", "seconds": 4, "size": None}
    headers = {"authorization": f"Bearer {gateway.token}", "x-tollgate-priority": "7"}
    created = httpx.post(f"{gateway.openai_url}/videos", json=body, headers=headers)
    assert created.status_code == 200
    video = created.json()
    assert created.headers["x-tollgate-request-id"] == video["id"]
    assert (video["seconds"], video["size"]) == ("4", None)
    assert (row_of(gateway, video["id"])["priority"], row_of(gateway, video["id"])["deadline"]) == (7, None)


def test_what_submit_request_submitted_is_a_video_too(gateway: GatewayServer, client: OpenAI) -> None:
    query = 'mutation { submitRequest(input: {model: "goo:video-1", input: "A cat."}) { ... on ModelRequest { id } } }'
    headers = {"authorization": f"Bearer {gateway.token}"}
    answer = httpx.post(f"{gateway.url}/graphql", json={"query": query}, headers=headers).json()
    video = client.videos.poll(answer["data"]["submitRequest"]["id"], **FAST)
    assert (video.status, video.prompt, video.seconds) == ("completed", "A cat.", "4")
    assert client.videos.download_content(video.id).content[4:8] == b"ftyp"


def test_a_fallback_makes_the_video_and_keeps_its_file(gateway: GatewayServer, client: OpenAI) -> None:
    gateway.emulator.configure("narrow", error=401)
    video = client.videos.create_and_poll(
        model="narrow:video-1", prompt="A cat.", extra_headers={"x-tollgate-fallbacks": "goo:video-1"}, **FAST
    )
    gateway.emulator.configure("narrow", error=None)
    assert (video.status, video.model) == ("completed", "goo:video-1")
    assert client.videos.download_content(video.id).content[4:8] == b"ftyp"


def test_a_wait_that_the_client_names_becomes_the_deadline(gateway: GatewayServer, client: OpenAI) -> None:
    video = client.videos.create(model="oai:video-1", prompt="A cat.", extra_headers={"x-tollgate-wait-seconds": "60"})
    row = row_of(gateway, video.id)
    assert (row["deadline"] - row["created_at"]).total_seconds() == pytest.approx(660, abs=5)


def test_a_repeat_under_its_key_answers_the_first_video(client: OpenAI) -> None:
    key = {"idempotency-key": "one-cat"}
    first = client.videos.create(model="oai:video-1", prompt="A cat.", extra_headers=key)
    assert client.videos.create(model="oai:video-1", prompt="A cat.", extra_headers=key).id == first.id
    with pytest.raises(openai.ConflictError, match="one-cat"):
        client.videos.create(model="oai:video-1", prompt="A dog.", extra_headers=key)


def test_videos_are_listed_by_pages_in_either_order(gateway: GatewayServer, client: OpenAI) -> None:
    ids = [client.videos.create(model="oai:video-1", prompt=f"A cat {number}.").id for number in range(5)]
    newest = [video.id for video in client.videos.list(limit=2)]
    assert set(ids) <= set(newest)
    assert newest == sorted(newest, reverse=True)
    assert [video.id for video in client.videos.list(limit=3, order="asc")] == newest[::-1]
    page = client.videos.list(limit=2, after=newest[1])
    assert [video.id for video in page.data] == newest[2:4]
    assert (page.has_more, page.last_id) == (True, newest[3])
    run(wait_finished(gateway.dsn, ids))


def test_a_video_waits_its_turn_and_is_cancelled_by_deleting_it(gateway: GatewayServer, client: OpenAI) -> None:
    hangs = client.videos.create(model="narrow:video-1", prompt=told("A cat.", fault="hang"), seconds="12")
    run(wait_until(gateway.dsn, "status = 'PROCESSING' FROM model_requests WHERE id = $1", hangs.id))
    waits = client.videos.create(model="narrow:video-1", prompt="A dog.")
    assert [client.videos.retrieve(video.id).status for video in (hangs, waits)] == ["in_progress", "queued"]
    for video in (hangs, waits):
        with pytest.raises(openai.ConflictError, match="has no content"):
            client.videos.download_content(video.id)
    # Nothing is deleted: there was no file, and the request is kept.
    assert not client.videos.delete(waits.id).deleted
    waits = client.videos.retrieve(waits.id)
    assert (waits.status, waits.progress, waits.completed_at) == ("failed", 0, None)
    assert waits.error is not None
    assert waits.error.code == "cancelled"
    gateway.emulator.wait("narrow", running=1)
    assert not client.videos.delete(hangs.id).deleted
    run(wait_finished(gateway.dsn, [hangs.id]))
    hangs = client.videos.retrieve(hangs.id)
    assert hangs.status == "failed"
    assert hangs.error is not None
    assert hangs.error.code == "cancelled"
    assert not client.videos.delete(hangs.id).deleted
    # What its provider makes of it nobody knows: the length that was asked for is charged, as an estimate.
    row = row_of(gateway, hangs.id)
    assert (row["status"], row["seconds"], row["usage_estimated"]) == ("CANCELLED", 12, True)
    assert row["cost_total"] == 12 * PRICE
    assert row_of(gateway, waits.id)["cost_total"] is None


@pytest.mark.parametrize("model", MODELS)
def test_a_video_that_cannot_be_made_says_why_and_costs_nothing(
    gateway: GatewayServer, client: OpenAI, model: str
) -> None:
    video = client.videos.create_and_poll(model=model, prompt=told("A cat.", job_fails=True), **FAST)
    assert video.status == "failed"
    assert video.error is not None
    assert video.error.code == "invalid_request"
    assert "The emulator was told to fail this video" in video.error.message
    assert row_of(gateway, video.id)["attempt_count"] == 1
    assert gateway.rows("SELECT * FROM ledger_entries WHERE request_id = $1", video.id) == []


@pytest.mark.parametrize("model", MODELS)
def test_polls_that_fail_for_a_while_make_no_second_video(gateway: GatewayServer, client: OpenAI, model: str) -> None:
    video = client.videos.create_and_poll(model=model, prompt=told("A cat.", job_poll_errors=2), **FAST)
    assert video.status == "completed"
    assert row_of(gateway, video.id)["attempt_count"] == 1
    gateway.served(video.id, model.partition(":")[0])


# --- files ----------------------------------------------------------------------------------------------------------


def resident_peak_bytes(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("model", "size"), [("oai:video-1", 30_000_001), ("oai:video-1", 70_000_000), ("goo:video-1", 160_000_000)]
)
def test_a_large_file_goes_through_in_bounded_memory(
    gateway: GatewayServer, client: OpenAI, model: str, size: int
) -> None:
    """What is too large to be stored stays at its provider, as all of Google's do."""
    prompt = told("A cat.", job_file_bytes=size)
    video = client.videos.create_and_poll(model=model, prompt=prompt, poll_interval_ms=200)
    assert video.status == "completed"
    assert row_of(gateway, video.id)["attempt_count"] == 1
    pid = gateway.process.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before = resident_peak_bytes(pid)
    with client.videos.with_streaming_response.download_content(video.id) as content:
        assert int(content.headers["content-length"]) == size
        pieces = content.iter_bytes()
        assert next(pieces)[4:8] == b"ftyp"
        rest = sum(map(len, pieces))
    assert size - 1024 * 1024 < rest < size
    assert resident_peak_bytes(pid) - before < 32 * 1024 * 1024
    client.videos.delete(video.id)


def test_a_file_that_its_provider_has_no_longer_is_not_found(gateway: GatewayServer, client: OpenAI) -> None:
    video = client.videos.create_and_poll(model="goo:video-1", prompt="A cat.", **FAST)
    change = "UPDATE model_requests SET output = jsonb_set(output, '{url}', to_jsonb($2::text)) WHERE id = $1"
    url = gateway.emulator.root("goo") + "/v1beta/files/none:download?alt=media"
    gateway.rows(change, video.id, url)
    with pytest.raises(openai.NotFoundError, match="VideoFile"):
        client.videos.download_content(video.id)
    # The provider's key goes nowhere else.
    gateway.rows(change, video.id, "http://elsewhere.test/v1beta/files/a:download")
    with pytest.raises(openai.NotFoundError, match="VideoFile"):
        client.videos.download_content(video.id)
    assert client.videos.delete(video.id).deleted


def test_a_file_that_needs_no_credential_is_fetched_where_it_is(gateway: GatewayServer, client: OpenAI) -> None:
    video = client.videos.create_and_poll(model="oai:video-1", prompt="A cat.", **FAST)
    gateway.rows(
        "UPDATE model_requests SET output = output - 'data' || jsonb_build_object('url', $2::text) WHERE id = $1",
        video.id,
        gateway.emulator.url("oai") + "/images/1.png",
    )
    assert client.videos.download_content(video.id).content.startswith(b"\x89PNG")


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seconds": "long"}, "seconds"),
        ({"seconds": "0"}, "seconds"),
        ({"prompt": ""}, "prompt"),
        ({"model": openai.omit}, "model"),
        ({"model": "oai:chat-1"}, "model"),
        ({"model": "ant:video-1"}, "protocol"),
        ({"model": "goo:video-1", "size": "1024x1792"}, "size"),
        ({"model": "goo:video-1", "seconds": "4.5"}, "seconds"),
        ({"extra_body": {"nonsense": "1"}}, "nonsense"),
        ({"input_reference": ("cat.txt", b"cat", "text/plain")}, "input_reference"),
        ({"extra_body": {"input_reference": {"file_id": "file-1"}}}, "input_reference"),
        ({"model": "goo:video-1", "extra_body": {"input_reference": {"image_url": "https://x.test/cat.png"}}}, "image"),
        ({"extra_headers": {"x-tollgate-on-disconnect": "cancel"}}, "on-disconnect"),
        ({"extra_headers": {"x-tollgate-nonsense": "1"}}, "nonsense"),
        ({"extra_query": {"nonsense": "1"}}, "nonsense"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_before_anything_is_written(
    gateway: GatewayServer, client: OpenAI, changes: dict[str, Any], match: str
) -> None:
    count = "SELECT count(*) AS n FROM model_requests"
    before = gateway.rows(count)[0]["n"]
    with pytest.raises(openai.BadRequestError, match=match):
        client.videos.create(**{"model": "oai:video-1", "prompt": "A cat.", **changes})
    assert gateway.rows(count)[0]["n"] == before


def test_tokens_and_rights_are_those_of_the_other_endpoints(
    gateway: GatewayServer, client: OpenAI, made: dict[str, str]
) -> None:
    id = made["oai:video-1"]
    reader = client.with_options(api_key=gateway.reader_token)
    assert reader.videos.retrieve(id).status == "completed"
    assert id in [video.id for video in reader.videos.list()]
    assert reader.videos.download_content(id).content
    for denied in (
        lambda: reader.videos.create(model="oai:video-1", prompt="A cat."),
        lambda: reader.videos.delete(id),
    ):
        with pytest.raises(openai.PermissionDeniedError, match="reader"):
            denied()
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nonsense").videos.retrieve(id)


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.videos.create(model="oai:nothing", prompt="A cat.")
    assert caught.value.code == "model_not_found"


def test_what_is_no_video_of_the_workspace_is_not_found(gateway: GatewayServer, client: OpenAI) -> None:
    chat = client.chat.completions.with_raw_response.create(
        model="oai:chat-1", messages=[{"role": "user", "content": "Hello"}]
    )
    foreign = client.videos.create_and_poll(model="oai:video-1", prompt="A cat.", **FAST).id
    gateway.rows(
        "INSERT INTO workspaces (id, name, updated_at) VALUES ('other', 'other', now()) ON CONFLICT DO NOTHING"
    )
    gateway.rows("UPDATE model_requests SET workspace_id = 'other' WHERE id = $1", foreign)
    for id in ("nothing", "video_123", "a\ud7ffb", chat.headers["x-tollgate-request-id"], foreign):
        for call in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                call(id)
            assert caught.value.code == "not_found"
    assert foreign not in [video.id for video in client.videos.list()]
    assert row_of(gateway, foreign)["output"] is not None


@pytest.mark.parametrize("parameters", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"extra_query": {"page": "1"}}])
def test_a_list_names_what_is_wrong_with_what_it_was_asked(client: OpenAI, parameters: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=r"limit|order|page"):
        client.videos.list(**parameters)


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
def test_pictures_of_a_video_there_are_none(client: OpenAI, made: dict[str, str], variant: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="variant"):
        client.videos.download_content(made["oai:video-1"], variant=variant)


def test_videos_are_not_made_of_videos(client: OpenAI, made: dict[str, str]) -> None:
    id, file = made["oai:video-1"], ("cat.mp4", b"mp4", "video/mp4")
    for call in (
        lambda: client.videos.remix(id, prompt="A dog."),
        lambda: client.videos.edit(prompt="A dog.", video=file),
        lambda: client.videos.extend(prompt="A dog.", seconds="4", video=file),
        lambda: client.videos.create_character(name="A cat", video=file),
        lambda: client.videos.get_character("character"),
    ):
        with pytest.raises(openai.NotFoundError, match="endpoint"):
            call()
