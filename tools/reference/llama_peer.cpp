// Asks llama.cpp, in exact f32 (f32 KV cache, no flash attention), what our own command is compared with.
//
//   llama_peer logits MODEL.gguf OUT.f32 ID...     logits of every position, raw little-endian f32 [tokens, vocab]
//   llama_peer stepwise MODEL.gguf OUT.f32 ID...   the same, one token at a time through the cache
//   llama_peer hidden MODEL.gguf OUT.f32 ID...     hidden states of an encoder, [tokens, hidden]
//   llama_peer scores MODEL.gguf OUT.f32 ID...     scores of a classifier for the whole sequence, [classes]
//   llama_peer tokenize MODEL.gguf plain|special   texts on stdin, each ended by a zero byte; a line of ids for each
//                                                  ("special": control tokens in the text are recognised)
//
// Build: g++ -O1 -std=c++17 -I$L/include -I$L/ggml/include llama_peer.cpp -L$L/build/bin -lllama -lggml -lggml-base
//            -Wl,-rpath,$L/build/bin -o llama_peer            where L is a built llama.cpp (peers.py does this)

#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

static void fail(const std::string & what) {
    fprintf(stderr, "llama_peer: %s\n", what.c_str());
    exit(1);
}

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static void logits(llama_model * model, const char * path, const std::vector<llama_token> & ids, bool stepwise) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx           = ids.size() + 8;
    params.n_batch         = ids.size() + 8;
    params.n_ubatch        = ids.size() + 8;
    params.n_threads       = 1;
    params.n_threads_batch = 1;
    params.type_k          = GGML_TYPE_F32;
    params.type_v          = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        fail("cannot make a context");
    }
    const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    FILE * out = fopen(path, "wb");
    if (!out) {
        fail(std::string("cannot write ") + path);
    }
    const size_t step = stepwise ? 1 : ids.size();
    llama_batch batch = llama_batch_init(step, 0, 1);
    for (size_t start = 0; start < ids.size(); start += step) {
        batch.n_tokens = step;
        for (size_t i = 0; i < step; i++) {
            batch.token[i]     = ids[start + i];
            batch.pos[i]       = start + i;
            batch.n_seq_id[i]  = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i]    = 1;
        }
        if (llama_decode(ctx, batch) != 0) {
            fail("decode failed");
        }
        for (size_t i = 0; i < step; i++) {
            const float * row = llama_get_logits_ith(ctx, i);
            if (!row || fwrite(row, sizeof(float), vocab, out) != (size_t) vocab) {
                fail("no logits, or the output cannot be written");
            }
        }
    }
    fclose(out);
    llama_batch_free(batch);
    llama_free(ctx);
}

static void encode(llama_model * model, const char * path, std::vector<llama_token> ids, bool scores) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = ids.size() + 8;
    params.n_threads = params.n_threads_batch = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.embeddings   = true;
    params.pooling_type = scores ? LLAMA_POOLING_TYPE_RANK : LLAMA_POOLING_TYPE_NONE;
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        fail("cannot make a context");
    }
    llama_batch batch = llama_batch_init(ids.size(), 0, 1);
    batch.n_tokens = ids.size();
    for (size_t i = 0; i < ids.size(); i++) {
        batch.token[i]     = ids[i];
        batch.pos[i]       = i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i]    = 1;
    }
    if (llama_encode(ctx, batch) != 0) {
        fail("encode failed");
    }
    FILE * out = fopen(path, "wb");
    const size_t size  = scores ? llama_model_n_cls_out(model) : llama_model_n_embd(model);
    const size_t count = scores ? 1 : ids.size();
    for (size_t i = 0; i < count; i++) {
        const float * row = scores ? llama_get_embeddings_seq(ctx, 0) : llama_get_embeddings_ith(ctx, i);
        if (!out || !row || fwrite(row, sizeof(float), size, out) != size) {
            fail("no embeddings, or the output cannot be written");
        }
    }
    fclose(out);
    llama_batch_free(batch);
    llama_free(ctx);
}

static void tokenize(const llama_model * model, bool special) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    for (size_t start = 0; start < input.size();) {
        const size_t end = input.find('\0', start);
        if (end == std::string::npos) {
            fail("the last text has no zero byte at its end");
        }
        std::vector<llama_token> ids(2 * (end - start) + 16);
        const int count = llama_tokenize(vocab, input.data() + start, end - start, ids.data(), ids.size(), false, special);
        if (count < 0) {
            fail("tokenize failed");
        }
        for (int i = 0; i < count; i++) {
            printf(i ? " %d" : "%d", ids[i]);
        }
        printf("\n");
        start = end + 1;
    }
}

int main(int argc, char ** argv) {
    if (argc < 4) {
        fail("usage: llama_peer logits|stepwise|hidden|scores MODEL OUT ID... | llama_peer tokenize MODEL plain|special");
    }
    const std::string mode = argv[1];
    llama_log_set(quiet, nullptr);
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.vocab_only   = mode == "tokenize";
    llama_model * model = llama_model_load_from_file(argv[2], params);
    if (!model) {
        fail(std::string("llama.cpp cannot load ") + argv[2]);
    }
    if (mode == "tokenize") {
        tokenize(model, strcmp(argv[3], "special") == 0);
    } else {
        std::vector<llama_token> ids;
        for (int i = 4; i < argc; i++) {
            ids.push_back(atoi(argv[i]));
        }
        if (mode == "hidden" || mode == "scores") {
            encode(model, argv[3], ids, mode == "scores");
        } else {
            logits(model, argv[3], ids, mode == "stepwise");
        }
    }
    llama_model_free(model);
    return 0;
}
