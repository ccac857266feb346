#include "optim/transfer.h"

#include <math.h>

transfer_factors transfer_of(const transfer_config *c, int64_t hidden, enum param_group group) {
    double s = c->proxy_width ? (double)hidden / (double)c->proxy_width : 1;
    int scales = group == GROUP_HIDDEN || group == GROUP_UNEMBEDDING;
    return scales ? (transfer_factors){1 / s, 1 / s} : (transfer_factors){1, 1};
}

init_config transfer_init(const transfer_config *c, int64_t hidden, const init_config *proxy) {
    return (init_config){
        .embedding_std = proxy->embedding_std * sqrt(transfer_of(c, hidden, GROUP_EMBEDDING).variance),
        .hidden_std = proxy->hidden_std * sqrt(transfer_of(c, hidden, GROUP_HIDDEN).variance),
        .unembedding_std = proxy->unembedding_std * sqrt(transfer_of(c, hidden, GROUP_UNEMBEDDING).variance)};
}
