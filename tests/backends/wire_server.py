"""The wire format of the Tinker SDK (0.24 to 0.38) in front of any object with ServiceClient's interface, over loopback.

Only for tests: one process, no authentication but a switch that refuses every key. The official client talks to it.
"""

import asyncio
import concurrent.futures
import contextlib
import inspect
import itertools
import socket
import threading

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

DTYPES = {pb.DTYPE_FLOAT32: ("float32", np.float32), pb.DTYPE_INT64: ("int64", np.int64)}
FLAGS = {"proto_write_fwdbwd": True, "fwd_via_fwdbwd": True}  # SDK 0.24 asks; 0.38 does nothing else


async def settled(pending):
    if inspect.isawaitable(pending):
        return await settled(await pending)
    if isinstance(pending, concurrent.futures.Future):
        return await settled(await asyncio.wrap_future(pending))
    return pending


class WireServer:
    """`with WireServer(service) as server: tinker.ServiceClient(base_url=server.url, api_key="tml-test")`.

    Misbehaviour, to be set at any time: `refuse_keys` (401), `silent` (accepts and never answers, health included),
    `latency` seconds before every answer, `errors` {path: message} (the request fails), `never` {path} (it never
    finishes), and `die()` (the process is gone, connections cut).
    """

    def __init__(self, service):
        self.service = service
        self.refuse_keys, self.silent, self.latency = False, False, 0.0
        self.errors, self.never, self.seen = {}, set(), []
        self._models, self._samplers, self._futures = {}, {}, {}
        self._ids = itertools.count()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer may wait 40 ms for an ACK
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self._app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.die()

    def die(self):
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        self._thread.join(10)
        self._socket.close()

    def _serve(self):
        async def main():
            await self._uvicorn.serve(sockets=[self._socket])
            for connection in list(self._uvicorn.server_state.connections):
                connection.transport.abort()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run(main())

    def _app(self):
        post = {
            "client/config": self.config,
            "create_session": self.session,
            "session_heartbeat": self.heartbeat,
            "create_model": self.create_model,
            "get_info": self.get_info,
            "forward_backward": self.forward_backward,
            "optim_step": self.optim_step,
            "save_weights": self.save_weights,
            "save_weights_for_sampler": self.save_weights_for_sampler,
            "create_sampling_session": self.create_sampling_session,
            "load_weights": self.load_weights,
            "asample": self.asample,
            "retrieve_future": self.retrieve_future,
            "cancel_future": self.heartbeat,
        }
        get = {
            "healthz": self.health,
            "get_server_capabilities": self.capabilities,
            "samplers/{id}": self.sampler,
        }
        routes = [Route(f"/api/v1/{path}", self._guarded(path, work), methods=["POST"]) for path, work in post.items()]
        routes += [Route(f"/api/v1/{path}", self._guarded(path, work), methods=["GET"]) for path, work in get.items()]
        return Starlette(routes=routes)

    def _guarded(self, path, work):
        async def endpoint(request):
            self.seen.append(path)
            while self.silent:  # noqa: ASYNC110 - set from another thread, by the test
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.latency)
            if self.refuse_keys and path != "healthz":
                return JSONResponse({"detail": "invalid API key"}, 401)
            answer = await work(request)
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return endpoint

    async def health(self, _):
        return {"status": "ok"}

    async def config(self, _):
        return FLAGS

    async def session(self, _):
        return {"type": "create_session", "session_id": f"session-{next(self._ids)}"}

    async def heartbeat(self, _):
        return {"type": "session_heartbeat"}

    async def capabilities(self, _):
        known = await asyncio.to_thread(self.service.get_server_capabilities)
        return {
            "supported_models": [
                {"model_name": model.model_name, "max_context_length": model.max_context_length}
                for model in known.supported_models
            ]
        }

    async def create_model(self, request):
        body = await request.json()
        lora = body["lora_config"]
        make = lambda: self.service.create_lora_training_client(  # noqa: E731
            base_model=body["base_model"], rank=lora["rank"], seed=lora.get("seed")
        )
        return self._promise("create_model", self._new_model(body, make))

    async def load_weights(self, request):
        body = await request.json()
        make = lambda: self.service.create_training_client_from_state_with_optimizer(body["path"])  # noqa: E731
        return self._promise("load_weights", self._new_model(body, make))

    async def _new_model(self, body, make):
        model_id = body.get("model_id") or f"{body['session_id']}:train:{body['model_seq_id']}"
        self._models[model_id] = await settled(await asyncio.to_thread(make))
        return {"type": "create_model" if "path" not in body else "load_weights", "model_id": model_id}

    async def get_info(self, request):
        model_id = (await request.json())["model_id"]
        info = await settled(await asyncio.to_thread(self._models[model_id].get_info))
        data = {"model_name": info.model_data.model_name}
        return {
            "type": "get_info",
            "model_id": model_id,
            "model_data": data,
            "is_lora": True,
            "lora_rank": info.lora_rank,
        }

    async def forward_backward(self, request):
        message = pb.ForwardBackwardRequest.FromString(await request.body())
        model = self._models[message.model_id]
        method = model.forward if message.forward_only else model.forward_backward
        data = [decoded_datum(datum) for datum in message.data]
        name = "forward" if message.forward_only else "forward_backward"
        return self._promise(name, self._then(lambda: method(data, message.loss_fn), encoded_output))

    async def optim_step(self, request):
        body = await request.json()
        params = types.AdamParams(**body["adam_params"])
        submit = lambda: self._models[body["model_id"]].optim_step(params)  # noqa: E731
        return self._promise("optim_step", self._then(submit, lambda done: {"metrics": done.metrics or {}}))

    async def save_weights(self, request):
        body = await request.json()
        submit = lambda: self._models[body["model_id"]].save_state(body["path"])  # noqa: E731
        return self._promise(
            "save_weights", self._then(submit, lambda done: {"type": "save_weights", "path": done.path})
        )

    async def save_weights_for_sampler(self, request):
        body = await request.json()
        made = await asyncio.to_thread(self._models[body["model_id"]].save_weights_and_get_sampling_client)
        return self._promise("save_weights_for_sampler", self._new_sampler(made))

    async def _new_sampler(self, pending):
        sampler = await settled(pending)
        return {"type": "save_weights_for_sampler", "sampling_session_id": self._keep(sampler)}

    async def create_sampling_session(self, request):
        body = await request.json()
        made = lambda: self.service.create_sampling_client(  # noqa: E731
            model_path=body.get("model_path"), base_model=body.get("base_model")
        )
        sampler = await settled(await asyncio.to_thread(made))
        return {"type": "create_sampling_session", "sampling_session_id": self._keep(sampler)}

    async def sampler(self, request):
        return {"sampler_id": request.path_params["id"], "base_model": "bigram"}

    async def asample(self, request):
        body = await request.json()
        tokens = [token for chunk in body["prompt"]["chunks"] for token in chunk["tokens"]]
        asked = body.get("target_prompt_logprobs")
        extra = {
            name: body[name]
            for name in ("topk_prompt_logprobs", "topk_sample_logprobs", "prompt_logprobs_last_n")
            if body.get(name)
        }
        if asked is not None:
            extra["target_prompt_logprobs"] = types.TensorData(**asked)
        submit = lambda: self._samplers[body["sampling_session_id"]].sample(  # noqa: E731
            prompt=types.ModelInput.from_ints(tokens),
            num_samples=body["num_samples"],
            sampling_params=types.SamplingParams(**body["sampling_params"]),
            include_prompt_logprobs=bool(body.get("prompt_logprobs")),
            **extra,
        )
        promise = self._promise("asample", self._then(submit, encoded_sample))
        return promise | {"sample_sequence_ids": [f"sequence-{next(self._ids)}" for _ in range(body["num_samples"])]}

    async def retrieve_future(self, request):
        task = self._futures[(await request.json())["request_id"]]
        await asyncio.wait([task], timeout=1.0)
        if not task.done():
            return {"type": "try_again", "request_id": "", "queue_state": "active"}
        if (error := task.exception()) is not None:
            return {"error": str(error), "category": "user"}
        return task.result()

    def _keep(self, sampler):
        name = f"sampler-{next(self._ids)}"
        self._samplers[name] = sampler
        return name

    def _promise(self, path, work):
        async def run():
            if path in self.errors:
                work.close()
                raise RuntimeError(self.errors[path])
            result = await work
            while path in self.never:  # noqa: ASYNC110 - set from another thread, by the test
                await asyncio.sleep(0.05)
            return result

        name = f"request-{next(self._ids)}"
        self._futures[name] = asyncio.ensure_future(run())
        return {"request_id": name}

    @staticmethod
    async def _then(submit, encode):
        return encode(await settled(submit()))


def decoded_datum(message):
    tokens = [
        int(token) for chunk in message.model_input for token in np.frombuffer(chunk.encoded_text.tokens, np.int32)
    ]
    inputs = {name: decoded_tensor(tensor) for name, tensor in message.loss_fn_inputs.items()}
    return types.Datum(model_input=types.ModelInput.from_ints(tokens), loss_fn_inputs=inputs)


def decoded_tensor(message):
    dtype, kind = DTYPES[message.dtype]
    shape = list(message.shape) or None
    if message.HasField("sparse_csr"):
        csr = message.sparse_csr
        return types.TensorData(
            np.frombuffer(csr.values, kind).copy(),
            dtype=dtype,
            shape=shape,
            sparse_crow_indices=np.frombuffer(csr.crow_indices, np.int64).tolist(),
            sparse_col_indices=np.frombuffer(csr.col_indices, np.int64).tolist(),
        )
    return types.TensorData(np.frombuffer(message.dense, kind).copy(), dtype=dtype, shape=shape)


def encoded_tensor(tensor):
    message = pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=tensor.shape)
    values = np.asarray(tensor.data, np.float32).tobytes()
    if tensor.sparse_crow_indices is None:
        message.dense = values
    else:
        message.sparse_csr.values = values
        message.sparse_csr.crow_indices = np.asarray(tensor.sparse_crow_indices, np.int64).tobytes()
        message.sparse_csr.col_indices = np.asarray(tensor.sparse_col_indices, np.int64).tobytes()
    return message


def encoded_output(output):
    message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics=output.metrics)
    for fields in output.loss_fn_outputs:
        record = message.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=1)
        for name, tensor in fields.items():
            values = np.asarray(tensor.data, np.float32).tobytes()
            batched = record.fields[name]
            batched.dtype, batched.data = pb.DTYPE_FLOAT32, values
            batched.offsets = np.array([0, len(values)], np.int64).tobytes()
            batched.trailing_shape.extend((tensor.shape or [])[1:])
    return protobuf(message)


def encoded_sample(response):
    message = pb.SampleResponse()
    for sequence in response.sequences:
        row = message.sequences.add(
            tokens=np.asarray(sequence.tokens, np.int32).tobytes(),
            stop_reason=pb.STOP_REASON_STOP if sequence.stop_reason == "stop" else pb.STOP_REASON_LENGTH,
        )
        if sequence.logprobs is not None:
            row.logprobs = np.asarray(sequence.logprobs, np.float32).tobytes()
        with contextlib.suppress(AttributeError, ValueError):  # absent from the protobuf of SDK 0.24
            if sequence.topk_logprobs is not None:
                row.topk_sampled_logprobs.CopyFrom(encoded_top(sequence.topk_logprobs))
    if response.prompt_logprobs is not None:
        values = [np.nan if value is None else value for value in response.prompt_logprobs]
        message.prompt_logprobs = np.asarray(values, np.float32).tobytes()
    if response.topk_prompt_logprobs is not None:
        message.topk_prompt_logprobs.CopyFrom(encoded_top(response.topk_prompt_logprobs))
    if response.target_prompt_logprobs is not None:
        message.target_prompt_logprobs.CopyFrom(encoded_tensor(response.target_prompt_logprobs))
    return protobuf(message)


def encoded_top(rows):
    width = max(len(row or ()) for row in rows)
    ids, logprobs = np.zeros((len(rows), width), np.int32), np.full((len(rows), width), -99999.0, np.float32)
    for place, row in enumerate(rows):
        for rank, (token, logprob) in enumerate(row or ()):
            ids[place, rank], logprobs[place, rank] = token, logprob
    return pb.TopkLogprobs(token_ids=ids.tobytes(), logprobs=logprobs.tobytes(), k=width, length=len(rows))


def protobuf(message):
    return Response(message.SerializeToString(), media_type="application/x-protobuf")
